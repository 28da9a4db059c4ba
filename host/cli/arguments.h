#pragma once
// What stands on postern's command line, read and checked as far as it can be without asking anybody. Reading never
// prints and never ends the program.

#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/time.h>
#include <kj/vector.h>
#include <stdint.h>

#include "host/cli/file-path.h"
#include "host/client/file-order.h"
#include "protocol/guest.capnp.h"
#include "transport/service/local-address.h"

namespace postern::cli {

using Names = kj::Vector<kj::String>;

struct StatusArguments {
  Names vms;  // empty: all
  bool watch = false;
  bool check = false;
};
struct PingArguments {
  kj::String vm;
  uint64_t count = 4;  // 0: until interrupted
  kj::Duration interval = 1 * kj::SECONDS;
};
struct InfoArguments {
  kj::String vm;
};

struct DoctorArguments {
  kj::String vm;  // empty: the host alone
};

// How a bundle is issued.
struct BundleArguments {
  kj::Maybe<kj::String> file;  // null: VM.bundle in the current folder
  kj::Duration lifetime = 15 * kj::MINUTES;
  kj::Maybe<kj::String> guestTransport;  // null: derived from the host's endpoint
  bool force = false;                    // replaces the file
};
struct EnrollArguments {
  kj::String vm;
  kj::String transport;  // empty: libvirt:VM
  bool libvirt = false;  // prepares the domain, too
  kj::String uuid;
  kj::String qmp;
  Names grants;
  Names to;
  BundleArguments bundle;
};
struct VmListArguments {};
struct VmShowArguments {
  kj::String vm;
};
struct VmSetArguments {
  kj::String vm;
  kj::String transport;
  Names tags;
  kj::String qmp;
};
struct VmRemoveArguments {
  kj::String vm;
};
struct VmRekeyArguments {
  kj::String vm;
  BundleArguments bundle;
};

struct PowerArguments {
  schema::PowerRequest::Action action;
  Names vms;
  bool wait = false;
  kj::Duration delay = 0 * kj::SECONDS;
  kj::String message;
  kj::Maybe<kj::Duration> forceAfter;
  bool ignoreInhibitors = false;
};

struct EventsArguments {
  kj::String vm;  // empty: all
  bool follow = false;
  uint32_t backlog = 20;
};

struct PolicyCheckArguments {
  Names files;    // empty: those of the folders
  Names folders;  // none either: the host's own
};
struct PolicyTestArguments {
  PolicyCheckArguments which;
};
struct PolicyDiffArguments {
  kj::String before;  // a file or a folder, each
  kj::String after;
};
struct PolicyExplainArguments {
  kj::String from;
  kj::String to;
  kj::String call;
  kj::String path;
};
struct PolicyReloadArguments {};

struct AuditTailArguments {
  uint32_t lines = 10;
};
struct AuditVerifyArguments {
  Names files;  // the oldest first; empty: the host's own
  kj::String head;
};

struct CopyArguments {
  kj::Vector<FilePath> sources;
  FilePath destination;
  bool recursive = false;  // also with `archive`
  bool archive = false;
  bool resume = false;
  bool verify = false;
  bool noClobber = false;
  client::Sparse sparse = client::Sparse::AUTO;
  uint64_t bytesPerSecond = 0;  // 0: as fast as it goes
};
struct ListFilesArguments {
  kj::Vector<FilePath> paths;  // in VMs, here and below
  bool details = false;
  bool all = false;
  bool recursive = false;
};
struct FileStatusArguments {
  kj::Vector<FilePath> paths;
};
struct MakeFolderArguments {
  kj::Vector<FilePath> paths;
  bool parents = false;
};
struct RemoveFilesArguments {
  kj::Vector<FilePath> paths;
  bool recursive = false;
  bool force = false;  // what is not there is no failure
};

struct ConnectArguments {
  kj::String vm;
  kj::String service;
};
struct ForwardArguments {
  kj::String vm;
  LocalAddress local;
  kj::String service;
};
struct ServicesArguments {
  kj::String vm;
};
struct ChannelListArguments {
  kj::String vm;  // empty: all
};
struct ChannelStatsArguments {
  kj::String vm;  // empty: all
  bool watch = false;
};
struct ChannelBlockArguments {
  kj::String vm;
  bool block = true;  // or unblock
};
struct ChannelCloseArguments {
  uint64_t id = 0;
};

using ServiceCommand = kj::OneOf<ConnectArguments, ForwardArguments, ServicesArguments, ChannelListArguments,
                                 ChannelStatsArguments, ChannelBlockArguments, ChannelCloseArguments>;
using MonitorCommand = kj::OneOf<StatusArguments, PingArguments, InfoArguments, EventsArguments, DoctorArguments>;
// One of these; kj::OneOf has not room for all commands side by side.
using FileCommand =
    kj::OneOf<CopyArguments, ListFilesArguments, FileStatusArguments, MakeFolderArguments, RemoveFilesArguments>;
using Command = kj::OneOf<MonitorCommand, EnrollArguments, VmListArguments, VmShowArguments, VmSetArguments,
                          VmRemoveArguments, VmRekeyArguments, PowerArguments, PolicyCheckArguments,
                          PolicyTestArguments, PolicyDiffArguments, PolicyExplainArguments, PolicyReloadArguments,
                          AuditTailArguments, AuditVerifyArguments, FileCommand, ServiceCommand>;

struct Options {
  kj::String root;  // absolute, without a trailing slash; empty: the machine itself
  bool json = false;
  kj::Maybe<kj::Duration> timeout;
};

struct Arguments {
  Options options;
  Command command;
};
// --help or --version: what to print.
struct HelpText {
  kj::String text;
};
// One line: what is wrong and what to write instead.
struct UsageError {
  kj::String text;
  bool json;  // --json was among the words
};

// `words` without the program's name.
kj::OneOf<Arguments, HelpText, UsageError> parseArguments(kj::ArrayPtr<const kj::StringPtr> words,
                                                          kj::StringPtr currentFolder);

}  // namespace postern::cli
