"""What is done with models and data: training, evaluation, prediction, measuring."""
