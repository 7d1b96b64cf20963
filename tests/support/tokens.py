"""Tokens of ServiceAccounts that can be withdrawn: each is bound to a Secret of its own, and ends with it."""

from __future__ import annotations

import itertools
import os

_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
_number = itertools.count()


class Token:
    """The token of an account, as a kubelet keeps it: `text` is the present one; `rotate` withdraws it for another."""

    def __init__(self, apiserver, namespace, account, audiences=()):
        self.text = ""
        self._apiserver, self._namespace, self._account = apiserver, namespace, account
        self._audiences = list(audiences)
        self._secret = ""
        self.rotate()

    def rotate(self, file=None):
        """Another one, also into a file that is swapped; what was there is good for nothing from now on. Gives that."""
        before, secret = self.text, self._secret
        self.text = self._make()
        if file is not None:
            self.write(file)
        if secret:
            self._apiserver.call("DELETE", f"{self._secrets}/{secret}")
        return before

    def write(self, file):
        """Put it into a file, all at once."""
        new = file.with_suffix(".new")
        new.write_text(self.text)
        new.replace(file)

    def accepted(self, text):
        """Whether the apiserver believes a token still; its answers may be ten seconds old."""
        spec = {"token": text, "audiences": self._audiences}
        document = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        return self._apiserver.call("POST", _REVIEWS, document)["status"].get("authenticated", False)

    @property
    def _secrets(self):
        return f"/api/v1/namespaces/{self._namespace}/secrets"

    def _make(self):
        self._secret = f"token-{os.getpid()}-{next(_number)}"
        made = self._apiserver.call("POST", self._secrets, {"metadata": {"name": self._secret}})
        bound = {"apiVersion": "v1", "kind": "Secret", "name": self._secret, "uid": made["metadata"]["uid"]}
        spec = {"audiences": self._audiences, "expirationSeconds": 3600, "boundObjectRef": bound}
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{self._account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return self._apiserver.call("POST", path, request)["status"]["token"]
