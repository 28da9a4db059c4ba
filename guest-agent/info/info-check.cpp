#include "guest-agent/info/info-check.h"

#include <capnp/serialize.h>
#include <kj/debug.h>
#include <string.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/info/probes.h"
#include "transport/children/children.h"

namespace postern::guest {

namespace {

// Words that are walked: each of the message once, and lists of structs in which one text is used often.
constexpr uint64_t TRAVERSAL_WORDS = uint64_t(8) * MAX_CHILD_OUTPUT / sizeof(capnp::word);
constexpr int NESTING = 8;

template <typename List>
unsigned count(List untrusted, size_t atMost) {
  return kj::min(untrusted.size(), unsigned(atMost));
}

bool checkOs(schema::Info::Reader untrusted, schema::Info::Builder out) {
  if (!untrusted.getOs().isValue()) return false;
  auto from = untrusted.getOs().getValue();
  auto to = out.initOs().initValue();
  auto text = [](capnp::Text::Reader value) { return boundedText(value, MAX_INFO_TEXT); };
  to.setName(text(from.getName()));
  to.setId(text(from.getId()));
  to.setVersionId(text(from.getVersionId()));
  to.setKernel(text(from.getKernel()));
  to.setArchitecture(text(from.getArchitecture()));
  to.setHostName(text(from.getHostName()));
  to.setBootedSecondsAgo(from.getBootedSecondsAgo());
  to.setBootId(text(from.getBootId()));
  to.setMachineId(text(from.getMachineId()));
  to.setTimeZone(text(from.getTimeZone()));
  return true;
}

bool checkNetwork(schema::Info::Reader untrusted, schema::Info::Builder out) {
  if (!untrusted.getNetwork().isValue()) return false;
  auto from = untrusted.getNetwork().getValue();
  auto to = out.initNetwork().initValue(count(from, MAX_INTERFACES));
  for (unsigned i = 0; i < to.size(); ++i) {
    to[i].setName(boundedText(from[i].getName(), MAX_SHORT_TEXT));
    to[i].setMac(boundedText(from[i].getMac(), MAX_SHORT_TEXT));
    to[i].setUp(from[i].getUp());
    auto addresses = from[i].getAddresses();
    auto outAddresses = to[i].initAddresses(count(addresses, MAX_ADDRESSES));
    for (unsigned j = 0; j < outAddresses.size(); ++j) {
      outAddresses.set(j, boundedText(addresses[j], MAX_SHORT_TEXT));
    }
  }
  return true;
}

bool checkFilesystems(schema::Info::Reader untrusted, schema::Info::Builder out) {
  if (!untrusted.getFilesystems().isValue()) return false;
  auto from = untrusted.getFilesystems().getValue();
  auto to = out.initFilesystems().initValue(count(from, MAX_FILE_SYSTEMS));
  for (unsigned i = 0; i < to.size(); ++i) {
    to[i].setMountPoint(boundedText(from[i].getMountPoint(), MAX_INFO_TEXT));
    to[i].setType(boundedText(from[i].getType(), MAX_TYPE_TEXT));
    to[i].setSource(boundedText(from[i].getSource(), MAX_SOURCE_TEXT));
    to[i].setTotalBytes(from[i].getTotalBytes());
    to[i].setAvailableBytes(from[i].getAvailableBytes());
    to[i].setStalled(from[i].getStalled());
  }
  return true;
}

bool checkUsers(schema::Info::Reader untrusted, schema::Info::Builder out) {
  if (!untrusted.getUsers().isValue()) return false;
  auto from = untrusted.getUsers().getValue();
  auto to = out.initUsers().initValue(count(from, MAX_USERS));
  for (unsigned i = 0; i < to.size(); ++i) {
    to[i].setName(boundedText(from[i].getName(), MAX_SHORT_TEXT));
    to[i].setLine(boundedText(from[i].getLine(), MAX_SHORT_TEXT));
    to[i].setHost(boundedText(from[i].getHost(), MAX_INFO_TEXT));
    to[i].setLoggedInSecondsAgo(from[i].getLoggedInSecondsAgo());
  }
  return true;
}

bool checkPart(Probe part, schema::Info::Reader untrusted, schema::Info::Builder out) {
  switch (part) {
    case Probe::OS:
      return checkOs(untrusted, out);
    case Probe::NETWORK:
      return checkNetwork(untrusted, out);
    case Probe::FILESYSTEMS:
      return checkFilesystems(untrusted, out);
    case Probe::USERS:
      return checkUsers(untrusted, out);
  }
  return false;
}

}  // namespace

kj::Maybe<kj::Own<capnp::MallocMessageBuilder>> checkInfo(Probe part, kj::ArrayPtr<const kj::byte> untrusted) {
  if (untrusted.size() == 0 || untrusted.size() > MAX_CHILD_OUTPUT || untrusted.size() % sizeof(capnp::word) != 0) {
    return nullptr;
  }
  // Aligned, as its reader wants it.
  auto words = kj::heapArray<capnp::word>(untrusted.size() / sizeof(capnp::word));
  memcpy(words.begin(), untrusted.begin(), untrusted.size());
  auto checked = kj::heap<capnp::MallocMessageBuilder>();
  bool good = false;
  auto malformed = kj::runCatchingExceptions([&] {
    capnp::FlatArrayMessageReader reader(words, {TRAVERSAL_WORDS, NESTING});
    good = checkPart(part, reader.getRoot<schema::Info>(), checked->initRoot<schema::Info>());
  });
  if (malformed != nullptr || !good) return nullptr;
  return kj::mv(checked);
}

}  // namespace postern::guest
