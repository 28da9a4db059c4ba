#include "guest-agent/identity/bundle-search.h"

#include <dirent.h>
#include <sodium.h>
#include <string.h>

#include <algorithm>

#include "guest-agent/identity/bounded-file.h"
#include "guest-agent/identity/smbios.h"

namespace postern::guest {

namespace {

constexpr kj::StringPtr BUNDLE_BEGINS = "postern-bundle-"_kj;
// White space around a bundle counts, so that a file with some is not called too long.
constexpr size_t MAX_BUNDLE_FILE_BYTES = MAX_BUNDLE_BYTES + 1024;
// Structures of type 11 that are looked at.
constexpr size_t MAX_SMBIOS_ENTRIES = 16;

enum class Wanted { YES, IF_THERE };

class Search {
 public:
  explicit Search(BundleSearch& out) : out(out) {}

  void file(kj::StringPtr path, Wanted wanted, SymbolicLinks links) {
    auto content = readBounded(path, MAX_BUNDLE_FILE_BYTES, links);
    KJ_SWITCH_ONEOF(content) {
      KJ_CASE_ONEOF(missing, FileMissing) {
        if (wanted == Wanted::YES) out.problems.add(kj::str(path, ": there is no such file"));
      }
      KJ_CASE_ONEOF(trouble, FileTrouble) out.problems.add(kj::mv(trouble.text));
      KJ_CASE_ONEOF(text, kj::Array<char>) {
        KJ_DEFER(sodium_memzero(text.begin(), text.size()));
        // An emptied file is how some remove one.
        bool blank = std::all_of(text.begin(), text.end(), [](char c) { return c == ' ' || c == '\n' || c == 0; });
        if (!blank || wanted == Wanted::YES) take(text, kj::heapString(path));
      }
    }
  }

  void smbios(kj::StringPtr entriesFolder) {
    for (auto& entry : typeElevenOf(entriesFolder)) {
      auto content = readBounded(kj::str(entriesFolder, "/", entry, "/raw"), MAX_SMBIOS_BYTES);
      if (content.is<FileTrouble>()) out.problems.add(kj::mv(content.get<FileTrouble>().text));
      if (!content.is<kj::Array<char>>()) continue;
      auto& raw = content.get<kj::Array<char>>();
      KJ_DEFER(sodium_memzero(raw.begin(), raw.size()));
      for (auto string : oemStrings(raw)) {
        if (string.size() < BUNDLE_BEGINS.size()) continue;
        if (string.slice(0, BUNDLE_BEGINS.size()) != BUNDLE_BEGINS.asArray()) continue;
        take(string, kj::str("SMBIOS type 11 (", entry, ")"));
      }
    }
  }

 private:
  BundleSearch& out;

  void take(kj::ArrayPtr<const char> text, kj::String from) {
    auto parsed = parseBundle(text);
    if (parsed.is<BundleError>()) {
      out.problems.add(kj::str(from, ": the bundle ", describe(parsed.get<BundleError>())));
      return;
    }
    out.found.add(FoundBundle{kj::mv(parsed.get<kj::Own<Bundle>>()), SecretText(kj::heapString(text)), kj::mv(from)});
  }

  static kj::Vector<kj::String> typeElevenOf(kj::StringPtr folder) {
    kj::Vector<kj::String> names;
    DIR* listing = opendir(folder.cStr());
    if (listing == nullptr) return names;
    KJ_DEFER(closedir(listing));
    while (auto* entry = readdir(listing)) {
      kj::StringPtr name = entry->d_name;
      if (name.startsWith("11-") && names.size() < MAX_SMBIOS_ENTRIES) names.add(kj::heapString(name));
    }
    std::sort(names.begin(), names.end());
    return names;
  }
};

}  // namespace

BundleSearch searchBundles(const Paths& paths, kj::Maybe<kj::StringPtr> option, kj::Maybe<kj::StringPtr> credentials) {
  BundleSearch result;
  Search search(result);
  KJ_IF_MAYBE (path, option) search.file(*path, Wanted::YES, SymbolicLinks::FOLLOW);
  KJ_IF_MAYBE (folder, credentials) {
    search.file(kj::str(*folder, "/postern.bundle"), Wanted::IF_THERE, SymbolicLinks::FOLLOW);
  }
  search.smbios(paths.smbiosEntries);
  search.file(paths.fwCfgBundle, Wanted::IF_THERE, SymbolicLinks::FOLLOW);
  search.file(paths.bundle, Wanted::IF_THERE, SymbolicLinks::REFUSE);
  return result;
}

}  // namespace postern::guest
