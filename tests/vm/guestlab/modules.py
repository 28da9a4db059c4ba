"""Kernel modules and what has to be loaded before them."""

from .errors import SetUpError


def load_order(kernel, names):
    """Paths (relative to the kernel's modules folder) of the named modules and of all they need, in loading order.

    What is built into the kernel needs no loading and is left out.
    """
    needs = _dependencies(kernel)
    builtin = _builtin(kernel)
    order = []
    for name in names:
        name = name.replace("-", "_")
        if name in builtin:
            continue
        if name not in needs:
            raise SetUpError(f"kernel {kernel.release} has no module {name}")
        path, dependencies = needs[name]
        # modules.dep is closed over dependencies and lists them from the nearest to the deepest.
        for module in [*reversed(dependencies), path]:
            if module not in order:
                order.append(module)
    return order


def _dependencies(kernel):
    table = {}
    for line in (kernel.modules_folder / "modules.dep").read_text().splitlines():
        path, _, dependencies = line.partition(":")
        table[_name(path)] = (path, dependencies.split())
    return table


def _builtin(kernel):
    return {_name(path) for path in (kernel.modules_folder / "modules.builtin").read_text().splitlines()}


def _name(path):
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
