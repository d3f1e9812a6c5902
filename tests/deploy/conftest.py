"""What the tests of the deployment share: the overlay for one machine with every component, rendered once."""

from __future__ import annotations

import pytest

from tests.deploy.manifests import COMPONENTS, LOCAL, Objects, render, with_components


@pytest.fixture(scope="session")
def local() -> Objects:
    """`kubectl apply -k deploy/k8s/overlays/local`."""
    return render(LOCAL)


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """The same with all components."""
    return render(with_components(LOCAL, COMPONENTS, tmp_path_factory.mktemp("everything")))
