"""The embedded data set: small videos whose classes differ only in frame order (`vsn data synth`)."""
