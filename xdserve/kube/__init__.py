"""xdserve on Kubernetes: reads objects from an apiserver, and writes what has become of them."""
