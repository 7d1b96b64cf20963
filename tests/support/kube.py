"""A real kube-apiserver and its etcd: `with Apiserver(folder) as apiserver: apiserver.start()`.

RBAC is on; no controller runs: nothing makes EndpointSlices, default ServiceAccounts or deletes what an owner had.
`python -m tests.kube FOLDER` runs one for trials by hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml
from kubernetes.aio import config

from tests.support.certificates import Authority
from tests.support.kube_binaries import kube_binaries, kubectl_binary
from tests.support.processes import Children, free_ports
from tests.support.wait import wait_until

HOST = "127.0.0.1"
_START_SECONDS = 90
_BOOTSTRAP = ("rbac/bootstrap-roles", "scheduling/bootstrap-system-priority-classes")
"""What is looked at a second after a start, and is there already in data that an apiserver has had before."""
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class ApiError(Exception):
    """The apiserver refused; `status` is its HTTP status."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status


class KubectlError(Exception):
    """kubectl failed; the text is what it said."""


class Apiserver:
    """A kube-apiserver with an etcd of its own; can be ended and started again on the same port, data and keys.

    `folder` gets keys, data, logs and the admin's `kubeconfig`; `flags` go to kube-apiserver, after ours. Use as a
    context, which ends what runs. Nothing here is async but what says so: the rest takes milliseconds.
    """

    DATA = "etcd"
    """The folder of etcd's data, under `folder`."""

    def __init__(self, folder, *flags):
        self.folder = folder
        self.port, self._etcd, self._peer = free_ports(3)
        self.url = f"https://{HOST}:{self.port}"
        self.kubeconfig = folder / "kubeconfig"
        self.child = self._etcd_child = None
        self._readyz = "/readyz"
        self._keys = _Keys(folder / "keys")
        self.ca, self.token = self._keys.ca, self._keys.token
        self._own_flags = flags
        self._children = Children(folder)
        self._opener = _opener(self.ca)
        self.write_kubeconfig(self.kubeconfig, token=self.token)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        """At once: to end in order takes more than a second, and what it keeps is safe from a crash too."""
        for child in filter(None, (self.child, self._etcd_child)):
            child.kill()
        self._children.__exit__(*error)

    def launch(self):
        """Start it and do not wait."""
        programs, flags = kube_binaries(), [*self._flags(), *self._own_flags]
        client, peer = f"http://{HOST}:{self._etcd}", f"http://{HOST}:{self._peer}"
        data = str(self.folder / self.DATA)
        known = _BOOTSTRAP if Path(data).exists() else ()
        self._readyz = "/readyz?" + "&".join(f"exclude=poststarthook/{name}" for name in known)
        self._etcd_child = None
        if "etcd" in programs:
            self._etcd_child = self._launch_etcd(str(programs["etcd"]), data, client, peer)
            command = [str(programs["kube-apiserver"]), *flags, f"--etcd-servers={client}"]
        else:
            places = ["--etcd-data", data, "--etcd-client", client, "--etcd-peer", peer]
            command = [str(programs["kube-apiserver"]), *places, "--", *flags]
        self.child = self._children.start("kube-apiserver", command)

    def start(self):
        """Start it and wait until it is ready; in a test that has an event loop, prefer `started`.

        Never from a passing thread: a child of ours ends with the thread that started it.
        """
        self.launch()
        _wait(self.ready, _START_SECONDS, "the kube-apiserver to be ready")
        return self

    async def started(self):
        """`start` for a test whose other tasks go on meanwhile."""
        self.launch()
        await wait_until(lambda: asyncio.to_thread(self.ready), _START_SECONDS, "the kube-apiserver to be ready", 0.05)

    def stop(self):
        """End it in order (SIGTERM), then its etcd; its exit status."""
        status = self.child.stop(20)
        if self._etcd_child:
            self._etcd_child.stop()
        return status

    def kill(self):
        """End it and its etcd at once, as a crash or the kernel does."""
        assert self.child.kill() == -signal.SIGKILL
        if self._etcd_child:
            self._etcd_child.kill()

    def ready(self):
        """Whether it serves; ChildError if it has ended."""
        self.child.check()
        try:
            self.call("GET", self._readyz, accept="*/*")
        except (ApiError, OSError):
            return False
        return True

    def call(self, method, path, body=None, *, token=None, accept="application/json"):
        """The answer to a request, decoded (its text if it is no JSON), as the admin or the owner of `token`.

        Raises ApiError.
        """
        headers = {"Accept": accept, "Authorization": f"Bearer {token or self.token}", "Content-Type": accept}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=30) as response:
                text = response.read().decode()
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode()) from error
        return json.loads(text) if text.startswith("{") else text

    def kubectl(self, *arguments, text=None, kubeconfig=None):
        """What kubectl says, with `text` as its input; as the admin or whom `kubeconfig` names. Raises KubectlError."""
        flags = [f"--kubeconfig={kubeconfig or self.kubeconfig}", f"--cache-dir={self.folder / 'kubectl'}"]
        environment = os.environ | {"KUBECTL_KUBERC": "false"}
        command = [str(kubectl_binary()), *flags, *arguments]
        done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def apply(self, *documents, namespace="default", flags=()):
        """Server-side apply of documents as they are, or of files and folders (paths); what kubectl says."""
        paths = [one for one in documents if isinstance(one, Path)]
        rest = [one for one in documents if not isinstance(one, Path)]
        sources = [word for path in paths for word in ("-f", str(path))] + (["-f", "-"] if rest else [])
        text = yaml.safe_dump_all(rest) if rest else None
        return self.kubectl("apply", "--server-side", f"--namespace={namespace}", *flags, *sources, text=text)

    def install(self, *crds):
        """Apply CRDs (files and folders) and wait until all that are there are served."""
        self.apply(*(path for path in crds if path.is_file() or any(path.glob("*.yaml"))))
        _wait(self._established, 60, "the CRDs to be established")

    def client(self, kubeconfig=None):
        """Await it for an ApiClient of `kubernetes.aio`, to use as an async context."""
        return config.new_client_from_config(config_file=str(kubeconfig or self.kubeconfig))

    def account_token(self, namespace, name, *, audiences=(), seconds=3600):
        """A token of a ServiceAccount, by TokenRequest (600 s at least)."""
        spec = {"audiences": list(audiences), "expirationSeconds": seconds}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return self.call("POST", path, request)["status"]["token"]

    def write_kubeconfig(self, path, *, token=None, token_file=None):
        """Write a kubeconfig for the owner of a token, or of a file that has it and may change; its path."""
        user = {"token": token} if token else {"tokenFile": str(token_file)}
        cluster = {"server": self.url, "certificate-authority": str(self.ca)}
        context = {"cluster": "tests", "user": "tests", "namespace": "default"}
        document = {"apiVersion": "v1", "kind": "Config", "current-context": "tests"}
        document |= {"clusters": [{"name": "tests", "cluster": cluster}]}
        document |= {"users": [{"name": "tests", "user": user}], "contexts": [{"name": "tests", "context": context}]}
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    def compact(self):
        """Make etcd forget all but what is there now; the revision.

        A watch from an older resourceVersion gets 410, unless the apiserver has what happened since in its own cache:
        that it loses when it is started again, and does not have with the flag `--watch-cache=false`.
        """
        revision = self._etcd_call("range", {"key": "AA=="})["header"]["revision"]
        self._etcd_call("compaction", {"revision": revision, "physical": True})
        return int(revision)

    def make_namespace(self, name):
        """A new namespace; its name."""
        self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def remove_namespace(self, name):
        """Delete all that a namespace has, and itself: what its controller would do."""
        for path in self._collections(name):
            self.call("DELETE", path)
        document = self.call("DELETE", f"/api/v1/namespaces/{name}")
        self.call("PUT", f"/api/v1/namespaces/{name}/finalize", document | {"spec": {"finalizers": []}})

    def _launch_etcd(self, program, data, client, peer):
        flags = [f"--data-dir={data}", f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        flags += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        flags += [f"--initial-cluster=default={peer}", "--unsafe-no-fsync", "--log-level=warn"]
        return self._children.start("etcd", [program, *flags])

    def _flags(self):
        keys = self._keys
        return [
            f"--bind-address={HOST}",
            f"--advertise-address={HOST}",
            f"--secure-port={self.port}",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={keys.serving[0]}",
            f"--tls-private-key-file={keys.serving[1]}",
            f"--client-ca-file={keys.ca}",
            f"--token-auth-file={keys.tokens}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={keys.accounts[0]}",
            f"--service-account-signing-key-file={keys.accounts[1]}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",  # it wants the controller that makes `default`
            "--etcd-compaction-interval=0",  # tests compact
        ]

    def _established(self):
        found = self.call("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]
        return all(_condition(one, "Established") for one in found)

    def _collections(self, namespace):
        """The paths of all lists of a namespace, by the version of each group that its server prefers."""
        for root in ("/api", "/apis"):
            for group in self.call("GET", root, accept=_DISCOVERY)["items"]:
                name = group["metadata"].get("name", "")
                version = group["versions"][0]
                for kind in version["resources"]:
                    if kind["scope"] == "Namespaced" and "deletecollection" in kind["verbs"]:
                        base = "/".join(filter(None, (root, name, version["version"])))
                        yield f"{base}/namespaces/{namespace}/{kind['resource']}"

    def _etcd_call(self, method, body):
        data = json.dumps(body).encode()
        with urllib.request.urlopen(f"http://{HOST}:{self._etcd}/v3/kv/{method}", data, timeout=30) as response:
            return json.load(response)


class _Keys:
    """The files of an authority, a serving certificate, the ServiceAccounts' key and the admin's token; made once."""

    def __init__(self, folder):
        self.ca, self.tokens = folder / "ca.pem", folder / "tokens.csv"
        self.serving, self.accounts = _pair(folder, "serving"), _pair(folder, "accounts")
        if not self.tokens.exists():
            folder.mkdir(parents=True, exist_ok=True)
            self._make(folder)
        self.token = self.tokens.read_text().split(",")[0]

    def _make(self, folder):
        authority = Authority()
        authority.write(folder, "ca")
        for name in ("serving", "accounts"):
            authority.server().write(folder, name)
        self.tokens.write_text(f'{secrets.token_hex(16)},admin,admin,"system:masters"\n')


def _pair(folder, name):
    return folder / f"{name}.pem", folder / f"{name}.key"


def _opener(ca):
    handler = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca))
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), handler)


def _condition(document, kind):
    conditions = document.get("status", {}).get("conditions") or []  # null at first
    return any(one["type"] == kind and one["status"] == "True" for one in conditions)


def _wait(probe, seconds, what):
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.05)
