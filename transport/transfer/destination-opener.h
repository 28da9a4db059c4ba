#pragma once
// runDestinationOpener(): makes what a transfer brings, with the rights of the process or thread that calls it, as its
// mover asks over a socket. It blocks; it lives in a thread of the CLI (get) or in a process of its own in the guest
// (put).
//
// Guarantees:
//  - nothing is made, replaced or removed but by one checked component relative to a directory handle that was opened
//    below `folder` without following a symbolic link
//  - a file gets its name when it is whole, has its mode and times, and has been synced: at every moment the name is
//    the old file, the new one, or nothing. Temporary files have no name (O_TMPFILE) where the file system allows,
//    else, and for files that may be resumed, the name of partialName(); the latter are locked, so that two transfers
//    to one file do not mix. Such names are Postern's: what is there under one is an earlier transfer's, to be used,
//    replaced or removed, and no file is brought under one
//  - a directory is made with mode 0700 and gets what it shall have when it is left
//  - set-id and sticky bits, devices and security.* attributes are not made unless the scope says `special`
//  - free space, inodes and quotas are looked at before anything is made; a disk that fills all the same is a problem
//    of the entry
//  - an entry that cannot be made is a problem of that entry, and so is each one in a directory that could not be made;
//    the rest goes on. What was made but could not be given its owner or an attribute is a problem, too, and stays
//  - hard links are made to files of this transfer only
//  - it does not follow the mover: whatever is not in order (ForwardCheck) ends it, and what had no name yet is gone,
//    but for what can be resumed.

#include <kj/io.h>

#include "protocol/transfer/path-scope.h"
#include "transport/transfer/source-opener.h"

namespace postern::transfer {

struct DestinationOptions {
  bool archive = false;
  bool noClobber = false;
  bool resume = false;
  bool verify = false;
  bool keepOwner = false;             // archive, and this process may give files away
  bool into = false;                  // tops get their names in `folder`; else the one top becomes `name` in it
  kj::String name;                    // not `into`
  kj::String scopePath;               // canonical path of `folder`; for the scope
  kj::Maybe<const PathScope&> scope;  // null: no bounds but the file system's
  bool special = false;               // without a scope: what it would say
  OwnerNames* owners = nullptr;       // for a process that cannot ask the user database any more
};

class DestinationListener {
 public:
  virtual void announced(const Totals&) {}
  // What is on the disk; and bytes that are being written to larger files.
  virtual void progress(const Progress&) {}
  // On either side. Paths are components from the top with '/' between, as the source named them.
  virtual void failed(kj::StringPtr /*path*/, const Problem&) {}
  virtual void made(kj::StringPtr /*path*/, const Entry&) {}  // got its name
};

OpenerEnd runDestinationOpener(kj::AutoCloseFd mover, kj::AutoCloseFd folder, const DestinationOptions& options,
                               DestinationListener& listener);

// A stream in place of a tree: standard output. One file; its bytes are written as they come.
OpenerEnd runDestinationStream(kj::AutoCloseFd mover, kj::AutoCloseFd stream, DestinationListener& listener);

// Entries without content, as they come: for ls and stat.
class ListingListener {
 public:
  virtual void entry(kj::StringPtr path, const Entry& entry) = 0;
  virtual void failed(kj::StringPtr path, const Problem& problem) = 0;
};
OpenerEnd runListing(kj::AutoCloseFd mover, ListingListener& listener);

// Of the file `name` while it is not whole: fits every name, is the same each time.
kj::String partialName(kj::StringPtr name);

}  // namespace postern::transfer
