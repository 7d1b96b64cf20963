"""The Router API: POST /infer in front of one model, and a simulation of model servers."""
