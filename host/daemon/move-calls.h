#pragma once
// Control.hostKey, exportVm, cancelExport and importVm (control.capnp). Each that changes something is decided, and in
// the audit log with the other host's key.

#include "host/control/control.capnp.h"
#include "host/daemon/daemon.h"

namespace postern::host {

using HostKeyContext = capnp::CallContext<schema::Control::HostKeyParams, schema::Control::HostKeyResults>;
using ExportVmContext = capnp::CallContext<schema::Control::ExportVmParams, schema::Control::ExportVmResults>;
using CancelExportContext =
    capnp::CallContext<schema::Control::CancelExportParams, schema::Control::CancelExportResults>;
using ImportVmContext = capnp::CallContext<schema::Control::ImportVmParams, schema::Control::ImportVmResults>;

// `daemon` outlives the promise. An export is carried out even if its caller goes away.
void tellHostKey(Daemon& daemon, HostKeyContext context);
kj::Promise<void> exportVm(Daemon& daemon, kj::Own<const LocalCaller> who, ExportVmContext context);
void cancelExport(Daemon& daemon, const LocalCaller& who, CancelExportContext context);
void importVm(Daemon& daemon, const LocalCaller& who, ImportVmContext context);

}  // namespace postern::host
