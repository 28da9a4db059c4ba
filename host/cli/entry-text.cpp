#include "host/cli/entry-text.h"

#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "host/cli/failure-text.h"
#include "host/cli/quantity.h"
#include "protocol/transfer/limits.h"

namespace postern::cli {

namespace {

using transfer::EntryKind;

struct Kind {
  kj::StringPtr word;
  char letter;
};
Kind kindOf(EntryKind kind) {
  switch (kind) {
    case EntryKind::FILE:
      return {"file"_kj, '-'};
    case EntryKind::DIRECTORY:
      return {"directory"_kj, 'd'};
    case EntryKind::SYMBOLIC_LINK:
      return {"symbolic-link"_kj, 'l'};
    case EntryKind::HARD_LINK:
      return {"hard-link"_kj, '-'};
    case EntryKind::FIFO:
      return {"fifo"_kj, 'p'};
    case EntryKind::CHARACTER_DEVICE:
      return {"character-device"_kj, 'c'};
    case EntryKind::BLOCK_DEVICE:
      return {"block-device"_kj, 'b'};
    case EntryKind::SOCKET:
      return {"socket"_kj, 's'};
  }
  return {"unknown"_kj, '?'};
}

kj::String timeText(int64_t seconds, const char* format) {
  tm parts{};
  time_t time = seconds;
  char out[64];
  if (localtime_r(&time, &parts) == nullptr || strftime(out, sizeof(out), format, &parts) == 0) return kj::str("?");
  return kj::str(static_cast<const char*>(out));
}

// RFC 3339, UTC, to the nanosecond.
kj::String preciseTime(const transfer::Entry& entry) {
  tm parts{};
  time_t time = entry.modifiedSeconds;
  char out[64];
  if (gmtime_r(&time, &parts) == nullptr || strftime(out, sizeof(out), "%Y-%m-%dT%H:%M:%S", &parts) == 0) {
    return kj::str(entry.modifiedSeconds);
  }
  char whole[96];
  snprintf(whole, sizeof(whole), "%s.%09uZ", out, entry.modifiedNanoseconds);
  return kj::str(static_cast<const char*>(whole));
}

kj::String octal(uint16_t mode) {
  char out[16];
  snprintf(out, sizeof(out), "%04o", mode & 07777u);
  return kj::str(static_cast<const char*>(out));
}

kj::String nameOr(kj::StringPtr name, uint32_t number) {
  return name.size() > 0 ? shown(name, transfer::MAX_OWNER_BYTES) : kj::str(number);
}

bool isDevice(const transfer::Entry& entry) {
  return entry.kind == EntryKind::CHARACTER_DEVICE || entry.kind == EntryKind::BLOCK_DEVICE;
}

kj::String sizeText(const transfer::Entry& entry) {
  return isDevice(entry) ? kj::str(entry.deviceMajor, ", ", entry.deviceMinor) : kj::str(entry.size);
}

enum class Align { LEFT, RIGHT };
void addCell(kj::Vector<char>& out, kj::StringPtr text, size_t width, Align align) {
  if (align == Align::LEFT) out.addAll(text);
  for (size_t i = text.size(); i < width; ++i) out.add(' ');
  if (align == Align::RIGHT) out.addAll(text);
  out.add(' ');
}

}  // namespace

kj::StringPtr kindWord(EntryKind kind) {
  return kindOf(kind).word;
}

kj::String modeText(const transfer::Entry& entry) {
  char out[] = "?rwxrwxrwx";
  out[0] = kindOf(entry.kind).letter;
  for (unsigned i = 0; i < 9; ++i) {
    if ((entry.mode & (0400u >> i)) == 0) out[1 + i] = '-';
  }
  auto special = [&](unsigned bit, size_t at, char with, char without) {
    if ((entry.mode & bit) != 0) out[at] = out[at] == 'x' ? with : without;
  };
  special(S_ISUID, 3, 's', 'S');
  special(S_ISGID, 6, 's', 'S');
  special(S_ISVTX, 9, 't', 'T');
  return kj::str(static_cast<const char*>(out));
}

kj::String localTime(int64_t seconds) {
  return timeText(seconds, "%Y-%m-%d %H:%M");
}

kj::String detailsOf(kj::ArrayPtr<const ListLine> lines, Letters letters) {
  size_t owners = 0, groups = 0, sizes = 0;
  for (auto& line : lines) {
    owners = kj::max(owners, nameOr(line.entry.owner, line.entry.uid).size());
    groups = kj::max(groups, nameOr(line.entry.group, line.entry.gid).size());
    sizes = kj::max(sizes, sizeText(line.entry).size());
  }
  kj::Vector<char> out;
  for (auto& line : lines) {
    auto& entry = line.entry;
    addCell(out, modeText(entry), 0, Align::LEFT);
    addCell(out, nameOr(entry.owner, entry.uid), owners, Align::LEFT);
    addCell(out, nameOr(entry.group, entry.gid), groups, Align::LEFT);
    addCell(out, sizeText(entry), sizes, Align::RIGHT);
    addCell(out, localTime(entry.modifiedSeconds), 0, Align::LEFT);
    out.addAll(escapedName(line.name, letters));
    if (entry.kind == EntryKind::SYMBOLIC_LINK) {
      out.addAll(" -> "_kj);
      out.addAll(escapedName(entry.target, letters));
    }
    out.add('\n');
  }
  return kj::heapString(out);
}

kj::String statusOf(kj::StringPtr title, const transfer::Entry& entry, Letters letters) {
  kj::Vector<kj::String> lines;
  auto add = [&](kj::StringPtr label, kj::String text) {
    lines.add(kj::str("  ", label, kj::repeat(' ', 10 - label.size()), text, '\n'));
  };
  lines.add(kj::str(shownPath(title, letters), '\n'));
  add("type", kj::str(kindWord(entry.kind)));
  if (entry.kind == EntryKind::SYMBOLIC_LINK) add("target", escapedName(entry.target, letters));
  if (isDevice(entry)) {
    add("device", sizeText(entry));
  } else {
    add("size", kj::str(entry.size, entry.size < 1024 ? kj::str() : kj::str(" (", describeBytes(entry.size), ")")));
  }
  add("mode", kj::str(octal(entry.mode), " ", modeText(entry)));
  add("owner", kj::str(nameOr(entry.owner, entry.uid), " (", entry.uid, ")"));
  add("group", kj::str(nameOr(entry.group, entry.gid), " (", entry.gid, ")"));
  add("modified", timeText(entry.modifiedSeconds, "%Y-%m-%d %H:%M:%S %z"));
  for (auto& attribute : entry.attributes) add("attribute", shown(attribute.name, transfer::MAX_NAME_BYTES));
  return kj::strArray(lines, "");
}

void writeEntry(JsonWriter& json, kj::StringPtr name, const transfer::Entry& entry) {
  writeName(json, "name", name);
  json.field("kind", kindWord(entry.kind)).field("size", entry.size).field("mode", octal(entry.mode));
  json.field("uid", entry.uid).field("gid", entry.gid);
  if (entry.owner.size() > 0) json.field("owner", entry.owner);
  if (entry.group.size() > 0) json.field("group", entry.group);
  json.field("modified", preciseTime(entry));
  if (entry.kind == EntryKind::SYMBOLIC_LINK) writeName(json, "target", entry.target);
  if (isDevice(entry)) json.field("major", entry.deviceMajor).field("minor", entry.deviceMinor);
  if (entry.attributes.empty()) return;
  json.key("attributes").beginArray();
  for (auto& attribute : entry.attributes) json.value(attribute.name);
  json.endArray();
}

}  // namespace postern::cli
