# SPDX-License-Identifier: BSD-2-Clause
"""Persistent ports: made and deleted by name, attached to switches, and, when attached to two, joining them."""

from __future__ import annotations

import errno

from ptnetmap.abi import netmap as abi
from ptnetmap.errors import PortError
from ptnetmap.netmap import names
from ptnetmap.netmap.directory import Directory
from ptnetmap.netmap.name_options import Conf
from ptnetmap.netmap.valeport import ValeAdapter


class PersistentPorts:
    """The persistent ports of a directory. Not locked; :class:`Netmap` has methods of the same names that are."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._wrappers: dict[str, ValeAdapter] = {}

    def create(self, name: str, conf: Conf, mem_id: int) -> None:
        """Make a port of the shape ``conf``, in its own memory (``mem_id`` 0) or another's. See :meth:`Netmap.create`."""
        names.parse(f"netmap:{name}")
        if names.is_vale(name) or names.split_pipe(name) or len(name) >= abi.IFNAMSIZ:
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot create a persistent port {name}: the name must have fewer than {abi.IFNAMSIZ} characters, "
                "not begin with vale, and be no pipe\n        choose another name",
            )
        if name in self._directory.adapters:
            raise PortError(errno.EEXIST, f"netmap: cannot create {name}: it exists\n        use it, or another name")
        adapter = self._directory.new_vale(name, conf, mem_id, 0, persistent=True)
        adapter.created = True
        adapter.retain()
        self._directory.enter_persistent(adapter)

    def delete(self, name: str) -> None:
        """Delete a port that nobody uses. See :meth:`Netmap.delete`."""
        adapter = self._directory.persistent(name)
        if not adapter.created:
            raise PortError(
                errno.EINVAL,
                f"netmap: cannot delete {name}: it exists while its pipes do\n        close them instead",
            )
        if adapter.switch is not None or adapter.references > 1:
            use = f"attached to {adapter.switch.name}" if adapter.switch else "open"
            raise PortError(
                errno.EBUSY, f"netmap: cannot delete {name}: it is {use}\n        detach and close it first"
            )
        adapter.created = False
        adapter.drop()

    def attach(self, name: str) -> int:
        """Attach a port to a switch, or to a second one; return its number there. See :meth:`Netmap.attach`."""
        switch_name, port_name = _split(name)
        adapter = self._directory.persistent(port_name)
        if self._directory.attached(name):
            raise PortError(errno.EBUSY, f"netmap: cannot attach {name}: it is attached\n        detach it first")
        if adapter.switch is None:
            attachment = self._directory.switch(switch_name).add(adapter, name)
            adapter.retain()
            return attachment.index
        return self._attach_second(switch_name, name, adapter)

    def _attach_second(self, switch_name: str, name: str, adapter: ValeAdapter) -> int:
        if adapter.owned_by_runtime:
            raise PortError(
                errno.EBUSY,
                f"netmap: cannot attach {name}: {adapter.owned_by_runtime}, and two is the most\n        detach it",
            )
        first = adapter.switch.name if adapter.switch else ""
        wrapper = self._directory.new_vale(
            name,
            Conf(
                tx_rings=adapter.shape.rx_rings,
                rx_rings=adapter.shape.tx_rings,
                tx_slots=adapter.shape.rx_slots,
                rx_slots=adapter.shape.tx_slots,
            ),
            0,
            0,
            persistent=True,
        )
        wrapper.set_header(adapter.header)
        wrapper.retain()
        wrapper.on_unused = lambda _: self._directory.drop_allocator(wrapper.allocator)
        try:
            adapter.start_runtime_use(f"it joins {first} and {switch_name}")
            wrapper.start_runtime_use("it is the other side of a port on two switches")
            attachment = self._directory.switch(switch_name).add(wrapper, name)
        except Exception:
            for side in (adapter, wrapper):
                side.stop_runtime_use()
            wrapper.drop()
            raise
        wrapper.patch(adapter)
        adapter.patch(wrapper)
        self._wrappers[name] = wrapper
        return attachment.index

    def detach(self, name: str) -> int:
        """Undo :meth:`attach`; return the number that the port had. See :meth:`Netmap.detach`."""
        switch_name, port_name = _split(name)
        if name in self._wrappers:
            return self._detach_second(name, self._directory.persistent(port_name))
        switch = self._directory.switches.get(switch_name)
        attachment = switch.find(name) if switch else None
        if switch is None or attachment is None:
            raise PortError(
                errno.ENXIO,
                f"netmap: cannot detach {name}: it is not attached\n        see what is (vale-ctl, Netmap.list)",
            )
        adapter = attachment.adapter
        if not adapter.persistent:
            raise PortError(
                errno.EINVAL, f"netmap: cannot detach {name}: it exists while it is open\n        close it instead"
            )
        if adapter.owned_by_runtime:
            raise PortError(
                errno.EBUSY,
                f"netmap: cannot detach {name}: {adapter.owned_by_runtime}\n        detach the other first",
            )
        self._directory.leave_switch(adapter)
        adapter.drop()
        return attachment.index

    def _detach_second(self, name: str, adapter: ValeAdapter) -> int:
        wrapper = self._wrappers.pop(name)
        index = wrapper.index
        adapter.patch(None)
        wrapper.patch(None)
        self._directory.leave_switch(wrapper)
        wrapper.stop_runtime_use()
        adapter.stop_runtime_use()
        wrapper.drop()
        return index


def _split(name: str) -> tuple[str, str]:
    vale = names.split_vale(name)
    if vale is None:
        raise PortError(errno.EINVAL, f"netmap: {name} names no port of a switch\n        write valeX:NAME")
    return vale.switch, vale.port
