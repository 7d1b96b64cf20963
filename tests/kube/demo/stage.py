"""What the demo plays on: an apiserver, xdserve under the chart's account, models, and the pods of gateways."""

from __future__ import annotations

import re
import sys
import time
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import yaml

from bootstrap.manifests import AUDIENCE
from tests.kube.demo.ground import Ground
from tests.kube.demo.keys import TOKEN_SECONDS, write_keys
from tests.kube.demo.kubectl import Kubectl
from tests.support import chart
from tests.support.kube import Apiserver
from tests.support.pod import Pod
from tests.support.processes import Children, clean_environment, free_ports
from xdserve.demo import models
from xdserve.demo.gateway import Gateway
from xdserve.demo.stage import copy_examples
from xdserve.demo.waiting import until
from xdserve.kube.parts import KINDS

ROOT = Path(__file__).parents[3]
CRDS = ROOT / "tests/kube/crds"
HOST = "127.0.0.1"
_PORTS = {"iris": 8080, "mnist": 8081}  # the examples' gateways
_MODELS = tuple(
    one for one in models.MODELS if one.ref in _PORTS and one.variant.removeprefix("v") in {"stable", "1", "2"}
)
_RULES = re.compile(r"\n  rules:.*", re.DOTALL)


@dataclass(slots=True, kw_only=True)
class Stage:
    """Everything that runs, and where; `iris` and `mnist` are what traffic is sent to, once their pods run."""

    folder: Path
    ground: Ground
    apiserver: Apiserver
    kubectl: Kubectl
    children: Children
    stack: ExitStack
    iris: Gateway
    mnist: Gateway
    pods: dict = field(default_factory=dict)
    xdserve: object = None
    admin: str = ""

    @property
    def account(self):
        """The kubeconfig of xdserve's ServiceAccount."""
        return self.folder / "xdserve.kubeconfig"

    def files(self, service):
        """`-f FILE` for all that is applied of a service, as arguments."""
        return [word for path in sorted((self.folder / service).glob("*.yaml")) for word in ("-f", _shown(self, path))]

    async def start_xdserve(self):
        """Start xdserve as the chart's Deployment would: its account, its settings; seconds until it is ready."""
        token = self.apiserver.account_token(chart.NAMESPACE, chart.NAME, seconds=TOKEN_SECONDS)
        self.apiserver.write_kubeconfig(self.account, token=token)
        settings = self.folder / "xdserve.yaml"
        settings.write_text(self._object("configmaps", chart.NAME, chart.NAMESPACE)["data"]["xdserve.yaml"])
        xds, admin = (f"{HOST}:{port}" for port in free_ports(2))
        command = [sys.executable, "-m", "xdserve", "serve", "--config", str(settings)]
        # What is a pod's own there: addresses, a folder, the credentials.
        command += ["--kubeconfig", str(self.account), "--state-directory", str(self.folder / "state")]
        command += ["--xds-address", xds, "--gateway-xds-address", xds, "--admin-address", admin, "--drain", "0.5"]
        pod = {"POD_NAME": "xdserve-0", "POD_NAMESPACE": chart.NAMESPACE, "POD_UID": "0"}
        begun = time.perf_counter()
        self.admin, self.xdserve = admin, self.children.start("xdserve", command, env=clean_environment(**pod))
        await until(self._ready, "xdserve to be ready", 60.0, every=0.05)
        return time.perf_counter() - begun

    async def start_pod(self, service):
        """Do what a kubelet would for a pod of a gateway; seconds from the start of Envoy until it is ready."""
        name = f"{service}-gateway"
        token = self.apiserver.account_token("models", name, audiences=[AUDIENCE], seconds=TOKEN_SECONDS)
        pod = Pod(self.folder, self.manifests(name), token=token, name=f"{name}-0")
        self.pods[service] = self.stack.enter_context(pod)
        begun = time.perf_counter()
        getattr(self, service).envoy = pod.start()
        await pod.wait_ready()
        return time.perf_counter() - begun

    def manifests(self, name):
        """The objects of a gateway, as the apiserver has them."""
        plurals = [f"{kind.lower()}s" for kind in KINDS]
        return [self._object(plural, name, "models") for plural in plurals]

    def _object(self, plural, name, namespace):
        group = {"poddisruptionbudgets": "apis/policy/v1", "deployments": "apis/apps/v1"}.get(plural, "api/v1")
        return self.apiserver.call("GET", f"/{group}/namespaces/{namespace}/{plural}/{name}")

    async def _ready(self):
        self.xdserve.check()
        return await _well(f"http://{self.admin}/readyz")


@asynccontextmanager
async def staged(ground, screen):
    """Start an apiserver and the models, and end all when the block is left. Raises ChildError."""
    with TemporaryDirectory(prefix="xdserve-demo-") as name, ExitStack() as stack:
        folder = Path(name)
        write_keys(folder)
        (folder / "logs").mkdir()
        screen.note("starting etcd and a kube-apiserver with RBAC; its keys and tokens are good for a day or more")
        apiserver = stack.enter_context(Apiserver(folder))
        stack.callback(_end, apiserver)
        children = stack.enter_context(Children(folder / "logs"))
        await apiserver.started()
        stage = _stage(folder, ground, apiserver, children, stack, screen)
        await _start_models(stage)
        yield stage


def _end(apiserver):
    """At once: nobody needs its data any more, and in order it takes seconds."""
    if apiserver.child and apiserver.child.running:
        apiserver.kill()


def _stage(folder, ground, apiserver, children, stack, screen):
    kubectl = Kubectl(apiserver.kubeconfig, folder, screen)
    found = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    if ground.own:
        found = _PORTS
    gateways = {
        service: Gateway(service=service, port=port, launch=None, envoy=None, children=children)
        for service, port in found.items()
    }
    return Stage(
        folder=folder, ground=ground, apiserver=apiserver, kubectl=kubectl, children=children, stack=stack, **gateways
    )


async def _start_models(stage):
    """Start the models, and write the examples with their addresses into the folder."""
    numbers = [port for model in _MODELS for port in model.ports()]
    ports = dict(zip(numbers, free_ports(len(numbers), stage.ground.address), strict=True))
    address = stage.ground.address
    running = [
        models.start(stage.children, replace(model, settings={**model.settings, "ADDRESS": address}), ports)
        for model in _MODELS
    ]
    _write_examples(stage, ports)
    for model, child in zip(_MODELS, running, strict=True):
        url = f"http://{address}:{ports[model.port]}/readyz"

        async def ready(url=url, child=child):
            child.check()
            return await _well(url)

        await until(ready, f"{model.name} to be ready", 30.0, every=0.05)


def _write_examples(stage, ports):
    """The examples as there are, but: endpoints that run, gateways of free ports, iris's policy without its rule."""
    copy_examples(stage.folder / "examples", ports)
    for service, port in _PORTS.items():
        (stage.folder / service).mkdir()
        for path in sorted((stage.folder / "examples" / service).glob("*.yaml")):
            wanted = _example(stage, service, port, path)
            if wanted:
                (stage.folder / service / path.name).write_text(wanted)


def _example(stage, service, port, path):
    text = path.read_text()
    match path.stem:
        case "gateway":  # by default a gateway listens at 8080: in a network of our own one may
            free = stage.ground.own and port == 8080
            address = "0.0.0.0" if stage.ground.own else HOST
            text = re.sub(r"address: .*", f"address: {address}", text)
            return None if free else re.sub(r"port: \d+", f"port: {getattr(stage, service).port}", text)
        case "transformer":
            return None
        case "traffic-policy" if service == "iris":
            return _RULES.sub("\n", text)
    documents = [one for one in yaml.safe_load_all(text) if not one["metadata"]["name"].startswith("iris-explainer")]
    documents[0]["spec"].pop("explainer", None)
    return yaml.safe_dump_all(documents, sort_keys=False).replace(HOST, stage.ground.address)


def _shown(stage, path):
    return str(path.relative_to(stage.folder))


async def _well(url):
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
