"""What tests of real processes share: Envoys, model servers, raw requests, waiting."""
