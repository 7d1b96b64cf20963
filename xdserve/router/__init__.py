"""The Router API: `POST /infer` in front of one model, and a simulation of model servers for demos and tests.

All settings are plain environment variables (`xdserve.router.settings`).
"""
