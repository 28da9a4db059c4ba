#include "host/cli/info-text.h"

#include "host/cli/failure-text.h"
#include "host/cli/quantity.h"
#include "host/cli/table.h"

namespace postern::cli {

namespace {

using schema::Info;

// Above it a number is nobody's uptime; and it fits a Duration.
constexpr uint64_t MAX_SECONDS = uint64_t(100) * 366 * 86400;

kj::String ago(uint64_t seconds) {
  if (seconds > MAX_SECONDS) return kj::str("unknown");
  return kj::str(describeDuration(static_cast<int64_t>(seconds) * kj::SECONDS), " ago");
}

Table::Cell cell(kj::String text) {
  return {kj::mv(text), Tint::NONE};
}

kj::String indented(const Table& table) {
  return shownLines(table.format(Colours::OFF), "  ");
}

kj::String describe(Info::Os::Reader os) {
  auto line = [](kj::StringPtr name, kj::String value) { return kj::str("  ", name, value, '\n'); };
  return kj::str(line("system        ", shown(os.getName())), line("kernel        ", shown(os.getKernel())),
                 line("architecture  ", shown(os.getArchitecture())), line("host name     ", shown(os.getHostName())),
                 line("booted        ", ago(os.getBootedSecondsAgo())), line("boot id       ", shown(os.getBootId())),
                 line("machine       ", shown(os.getMachineId())), line("time zone     ", shown(os.getTimeZone())));
}

kj::String describe(capnp::List<Info::Interface>::Reader interfaces) {
  Table table({"INTERFACE", "STATE", "MAC", "ADDRESSES"});
  for (auto interface : interfaces) {
    auto addresses = KJ_MAP(address, interface.getAddresses()) {
      return shown(address, 64);
    };
    table.add(kj::arr(cell(shown(interface.getName(), 32)), cell(kj::str(interface.getUp() ? "up" : "down")),
                      cell(shown(interface.getMac(), 32)), cell(kj::strArray(addresses, ", "))));
  }
  return indented(table);
}

kj::String describe(capnp::List<Info::FileSystem>::Reader fileSystems) {
  Table table({"MOUNTED AT", "TYPE", "SOURCE", "SIZE", "FREE"});
  for (auto fileSystem : fileSystems) {
    bool stalled = fileSystem.getStalled();
    table.add(kj::arr(cell(shown(fileSystem.getMountPoint(), 100)), cell(shown(fileSystem.getType(), 32)),
                      cell(shown(fileSystem.getSource(), 100)),
                      cell(stalled ? kj::str("-") : describeBytes(fileSystem.getTotalBytes())),
                      cell(stalled ? kj::str("does not answer") : describeBytes(fileSystem.getAvailableBytes()))));
  }
  return indented(table);
}

kj::String describe(capnp::List<Info::User>::Reader users) {
  if (users.size() == 0) return kj::str("  nobody\n");
  Table table({"USER", "LINE", "FROM", "SINCE"});
  for (auto user : users) {
    table.add(kj::arr(cell(shown(user.getName(), 64)), cell(shown(user.getLine(), 32)), cell(shown(user.getHost(), 64)),
                      cell(ago(user.getLoggedInSecondsAgo()))));
  }
  return indented(table);
}

template <typename Part>
kj::String section(kj::StringPtr title, Part part) {
  if (part.isValue()) return kj::str(title, '\n', describe(part.getValue()));
  if (part.isTimedOut()) return kj::str(title, "\n  no answer within ", part.getTimedOut(), " ms\n");
  if (part.isRefused()) return kj::str(title, "\n  ", lineOf(client::failureOf(part.getRefused())), '\n');
  return kj::str(title, "\n  not asked for: the host's policy does not allow it\n");
}

void writeValue(JsonWriter& json, Info::Os::Reader os) {
  json.beginObject().field("name", os.getName()).field("id", os.getId()).field("versionId", os.getVersionId());
  json.field("kernel", os.getKernel()).field("architecture", os.getArchitecture()).field("hostName", os.getHostName());
  json.field("bootedSecondsAgo", os.getBootedSecondsAgo()).field("bootId", os.getBootId());
  json.field("machineId", os.getMachineId()).field("timeZone", os.getTimeZone()).endObject();
}

void writeValue(JsonWriter& json, capnp::List<Info::Interface>::Reader interfaces) {
  json.beginArray();
  for (auto interface : interfaces) {
    json.beginObject().field("name", interface.getName()).field("mac", interface.getMac());
    json.field("up", interface.getUp()).key("addresses").beginArray();
    for (auto address : interface.getAddresses()) json.value(address);
    json.endArray().endObject();
  }
  json.endArray();
}

void writeValue(JsonWriter& json, capnp::List<Info::FileSystem>::Reader fileSystems) {
  json.beginArray();
  for (auto fileSystem : fileSystems) {
    json.beginObject().field("mountPoint", fileSystem.getMountPoint()).field("type", fileSystem.getType());
    json.field("source", fileSystem.getSource()).field("stalled", fileSystem.getStalled());
    if (!fileSystem.getStalled()) {
      json.field("totalBytes", fileSystem.getTotalBytes()).field("availableBytes", fileSystem.getAvailableBytes());
    }
    json.endObject();
  }
  json.endArray();
}

void writeValue(JsonWriter& json, capnp::List<Info::User>::Reader users) {
  json.beginArray();
  for (auto user : users) {
    json.beginObject().field("name", user.getName()).field("line", user.getLine()).field("host", user.getHost());
    json.field("loggedInSecondsAgo", user.getLoggedInSecondsAgo()).endObject();
  }
  json.endArray();
}

template <typename Part>
void writePart(JsonWriter& json, kj::StringPtr name, Part part) {
  json.key(name);
  if (part.isValue()) return writeValue(json, part.getValue());
  if (part.isTimedOut()) {
    json.beginObject().field("timedOutMs", part.getTimedOut()).endObject();
    return;
  }
  if (part.isRefused()) {
    json.beginObject().key("refused");
    writeError(json, client::failureOf(part.getRefused()));
    json.endObject();
    return;
  }
  json.null();
}

}  // namespace

kj::String infoText(kj::StringPtr vm, Info::Reader info) {
  auto features = KJ_MAP(feature, info.getFeatures()) {
    return shown(feature, 32);
  };
  return kj::str(vm, ": postern-agent ", shown(info.getAgentVersion(), 32), " (", kj::strArray(features, ", "), ")\n",
                 section("system", info.getOs()), section("network", info.getNetwork()),
                 section("file systems", info.getFilesystems()), section("users", info.getUsers()));
}

void writeInfo(JsonWriter& json, Info::Reader info) {
  json.field("agentVersion", info.getAgentVersion()).key("features").beginArray();
  for (auto feature : info.getFeatures()) json.value(feature);
  json.endArray();
  writePart(json, "os", info.getOs());
  writePart(json, "network", info.getNetwork());
  writePart(json, "filesystems", info.getFilesystems());
  writePart(json, "users", info.getUsers());
}

}  // namespace postern::cli
