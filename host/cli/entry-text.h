#pragma once
// Entries of a guest's file system, as people and as programs see them. Everything of them came from the guest.

#include "host/cli/file-name.h"
#include "host/client/transfer-watch.h"

namespace postern::cli {

// "drwxr-xr-x", as ls has it.
kj::String modeText(const transfer::Entry& entry);
// "file", "directory", "symbolic-link": for programs, and for people with a space.
kj::StringPtr kindWord(transfer::EntryKind kind);
// "2026-11-28 17:54", in this machine's time zone; "?" for a time that no calendar has.
kj::String localTime(int64_t seconds);

struct ListLine {
  kj::String name;
  transfer::Entry entry;
};
// As `ls -l` has it, columns as wide as the widest of these.
kj::String detailsOf(kj::ArrayPtr<const ListLine> lines, Letters letters);
// As `stat` shows it, several lines under `title`.
kj::String statusOf(kj::StringPtr title, const transfer::Entry& entry, Letters letters);
// The fields of an object that is open.
void writeEntry(JsonWriter& json, kj::StringPtr name, const transfer::Entry& entry);

}  // namespace postern::cli
