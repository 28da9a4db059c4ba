@0xddaca8b7371b5413;
# File copies: what the two ends of a transfer say to each other, and what each says to the process that opens files for it.
#
# Four parties take part in one transfer. On each machine an *opener*, which runs with the rights of the one who may open
# files (the caller's own process on the host; in the guest a process that runs as the policy's run-as user, confined to one
# folder), and a *mover*, which speaks with the other machine and can open nothing (postern-session; postern-agent).
#
#   source opener --Forward--> source mover ==Forward, over a bulk channel==> destination mover --Forward--> destination opener
#                 <-Backward--              <=Backward=                                         <-Backward--
#
# Forward is the tree, depth first: one Entry after another, each named by a single path component and relative to the
# directory that was last entered and not yet left. Small files travel inside their Entry. Of a larger one the source opener
# hands its mover the open descriptor, and the destination opener hands its mover a new file under a temporary name; the movers
# carry the bytes between the two, and the destination opener gives the file its name when it is whole and on the disk.
# Nothing waits for a round trip but the start and, to send what differs alone, files of at least DELTA_MIN_BYTES.
#
# Frame: u32 (LE) bytes of the Cap'n Proto part | u32 (LE) bytes of content | that part (one segment, no table) | content |
# padding of zeros to 8 bytes. Over a bulk channel frames follow each other in the byte stream, wherever records are cut. Between
# mover and opener (SOCK_SEQPACKET) a packet holds whole frames, and at most one of them brings descriptors. Numbers are bounded
# in protocol/transfer/limits.h; every one that is broken ends the transfer.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("postern::schema");

struct FileOrder {
  # What is to be done with which path of the guest. From the caller through posternd's grant to the guest's opener, and decided
  # at every step.

  call @0 :Call;
  path @1 :Data;
  # Canonical (protocol/policy/path-glob.h), at most 4095 bytes; any byte but NUL.

  recursive @2 :Bool;
  # Directories too; remove: what they hold, too.
  archive @3 :Bool;
  # Owner, extended attributes and ACLs, hard links as well.
  intoDirectory @4 :Bool;
  # put: `path` must be a directory that is there, because it was written with a slash at its end or there are several sources.
  noClobber @5 :Bool;
  # What exists is a problem of that entry, and stays.
  resume @6 :Bool;
  # Go on from what an interrupted transfer left beside the destination.
  verify @7 :Bool;
  # Every file is read again from the destination's disk, and its hash compared, before it gets its name.
  sparse @8 :Sparse;
  makeParents @9 :Bool;
  # mkdir: and what lacks above it.
  rate @10 :UInt64;
  # Bytes of content a second that the caller asks for at most; 0: as fast as it goes. The host's session paces by it and by the
  # policy's limits, whichever is lower.
  special @11 :Bool;
  # Set-id and sticky bits, devices and security attributes as well. The host's session fills it in by the host's policy, whatever
  # its caller wrote; a guest sends and makes them only if its own policy says so, too.

  enum Call {
    get @0;
    put @1;
    list @2;
    # Entries of a directory without content, or the one entry that `path` is.
    stat @3;
    # The one entry that `path` is.
    mkdir @4;
    remove @5;
  }
  enum Sparse {
    auto @0;
    # Holes stay holes.
    always @1;
    # Runs of zeros become holes, too.
    never @2;
  }
}

struct Problem {
  # Why an entry, or all of a transfer, was not carried out. What a caller branches on is `kind`.

  kind @0 :Kind;
  detail @1 :Text;
  # For a person, at most 512 bytes: what failed, as whom, and what to do. Printable where it is shown.
  rule @2 :Text;
  # denied: the rule, or empty.

  enum Kind {
    failed @0;
    # An error of the system that has no kind of its own; the detail names it.
    noSuchFile @1;
    notDirectory @2;
    isDirectory @3;
    exists @4;
    permission @5;
    # By the file system, for the user whom the detail names.
    denied @6;
    # By a policy.
    nameTooLong @7;
    symbolicLink @8;
    # On the way to the path, where none is followed.
    noSpace @9;
    quota @10;
    # Of the file system or of a policy.
    unsupported @11;
    # A kind of file, or an attribute, that this end does not take.
    vanished @12;
    # It was there when it was counted.
    changed @13;
    # While it was read; what was sent of it is thrown away.
    unreadable @14;
    badHash @15;
    # --verify: what is on the disk is not what was sent.
    busy @16;
    # Another transfer writes to the same file, or too many are under way.
    notEmpty @17;
    readOnly @18;
    protocol @19;
    # The other end broke a rule of this file.
    tooMany @20;
    # More than was announced, or than a bound allows.
  }
}

struct Attribute {
  name @0 :Text;
  # "user.comment", "system.posix_acl_access".
  value @1 :Data;
}

struct Entry {
  kind @0 :Kind;
  name @1 :Data;
  # 1 to 255 bytes, no '/', no NUL, not "." or "..".
  mode @2 :UInt16;
  # The twelve low bits. Set-user-id, set-group-id and sticky count only where both policies say so.
  modifiedSeconds @3 :Int64;
  modifiedNanoseconds @4 :UInt32;
  uid @5 :UInt32;
  gid @6 :UInt32;
  owner @7 :Text;
  group @8 :Text;
  # Names, at most 64 bytes; empty if there is none, or if not `archive`.
  size @9 :UInt64;
  # file: bytes.
  target @10 :Data;
  # symbolicLink: 1 to 4095 bytes without NUL.
  linkTo @11 :List(Data);
  # hardLink: components, from the top of this transfer, of an entry of it that came before and had `hasLinks`.
  hasLinks @12 :Bool;
  # file: hardLinks to it may follow.
  deviceMajor @13 :UInt32;
  deviceMinor @14 :UInt32;
  attributes @15 :List(Attribute);
  # At most MAX_ATTRIBUTE_BYTES in all.
  inlined @16 :Bool;
  # file: its `size` bytes are this frame's content. Otherwise hole, data and fileEnd follow, before the next entry.
  hash @17 :Data;
  # file, inlined, `verify`: 32 bytes, BLAKE2b-256 of the content.
  wantsBase @18 :Bool;
  # file, not inlined: the source waits for Backward.base before it sends anything of it.
  stream @19 :Bool;
  # file, not inlined: standard input. `size` is 0, since nobody knows it yet; the file ends where fileEnd comes. Only in a transfer
  # that was announced as one (Totals.stream).

  enum Kind {
    file @0;
    directory @1;
    # It is entered: what follows, up to its `leave`, is in it.
    symbolicLink @2;
    hardLink @3;
    fifo @4;
    characterDevice @5;
    blockDevice @6;
    socket @7;
    # In lists only.
  }
}

struct Forward {
  union {
    totals @0 :Totals;
    # First of all, once.
    entry @1 :Entry;
    data :group {
      offset @2 :UInt64;
      # The content is what belongs there: at most DATA_BYTES. Offsets only grow.
    }
    hole :group {
      holeOffset @3 :UInt64;
      holeBytes @4 :UInt64;
    }
    same :group {
      # These bytes are as in the base that the destination told the hashes of. Whole chunks, or up to the file's end.
      sameOffset @5 :UInt64;
      sameBytes @6 :UInt64;
    }
    fileEnd :group {
      hash @7 :Data;
      # `verify`: 32 bytes, BLAKE2b-256 of the whole file. Otherwise empty.
    }
    fileFailed @8 :Problem;
    # In place of fileEnd: nothing of it counts.
    leave @9 :Void;
    failed :group {
      # An entry that could not be read, by the name that it has in the present directory; or a directory from which no more can be.
      name @10 :Data;
      problem @11 :Problem;
    }
    done @12 :Void;
  }
}

struct Totals {
  files @0 :UInt64;
  # Everything that is not a directory.
  directories @1 :UInt64;
  bytes @2 :UInt64;
  # Of content.
  deepest @3 :UInt32;
  # Directories inside each other; 0: there are none.
  tops @4 :UInt32;
  # Entries that are in no directory of this transfer: what the caller named.
  stream @5 :Bool;
  # One file whose size nobody knows (Entry.stream): `bytes` is 0 and bounds nothing; quotas do. For whoever does not take such.
  holes @6 :UInt64;
  # Of `bytes`: what takes no room at the source. For the destination's look at its free space alone.
}

struct Backward {
  union {
    ready :group {
      into @0 :Bool;
      # The tops get their names in the directory that the order's path is. Otherwise the one top becomes that path.
    }
    refused @1 :Problem;
    # Nothing was done, and nothing will be.
    base :group {
      # Of the file that was announced last, with `wantsBase`: how much of an earlier version, or of an interrupted transfer, the
      # destination has; 0: nothing. Its hashes follow, while the source may be sending already.
      bytes @2 :UInt64;
    }
    hashes @3 :Data;
    # BLAKE2b-256 of the next chunks of CHUNK_BYTES (the last may be shorter), 32 bytes each, up to MAX_HASHES.
    failed :group {
      entry @4 :UInt64;
      # Its number: the first entry of the transfer is 0.
      path @5 :Data;
      # Components with '/' between, from the top, for people; at most 4095 bytes.
      problem @6 :Problem;
    }
    progress :group {
      entries @7 :UInt64;
      # That are done, whatever came of them.
      bytes @8 :UInt64;
      # That are on the disk.
    }
    finished @9 :Summary;
    # After `done`: everything that is going to be on the disk is there. The last message.
  }
}

struct Summary {
  files @0 :UInt64;
  directories @1 :UInt64;
  bytes @2 :UInt64;
  # Of whole files, as they are now at the destination.
  sentBytes @3 :UInt64;
  # Content that travelled.
  failures @4 :UInt64;
  # Entries that were not carried out, on either side.
  unchanged @5 :UInt64;
  # Files that were there already, byte for byte.
}

struct Opened {
  # Destination opener to its mover: for an entry that is not inlined. Brings one descriptor, a file that is empty or (`resumed`) holds
  # what an interrupted transfer left; and with `hasBase` a second one, the version that is there now, for reading. Without any, and
  # without the two flags, the file's bytes come to the opener. A file that cannot be opened gets Backward.failed in its place.
  entry @0 :UInt64;
  resumed @1 :Bool;
  hasBase @2 :Bool;
}

struct Commit {
  # Destination mover to its opener: the entry's bytes are all in its file; or not, and why.
  entry @0 :UInt64;
  outcome :union {
    whole @1 :Void;
    unchanged @2 :Void;
    # The base is the file already: only what describes it is to be brought up to date.
    failed @3 :Problem;
    kept @4 :Void;
    # Interrupted: what there is may be resumed.
  }
  synced @5 :Bool;
  # It has been written to the disk already.
}

struct ToMover {
  # What an opener sends.
  union {
    forward @0 :Forward;
    backward @1 :Backward;
    opened @2 :Opened;
  }
}

struct ToOpener {
  # What a mover sends to its opener.
  union {
    forward @0 :Forward;
    backward @1 :Backward;
    commit @2 :Commit;
    sent @3 :UInt64;
    # To a source opener, some times a second: bytes of content that have left. To a destination opener, before a commit: that have come.
  }
}

struct PathScope {
  # What one caller's file call may touch: every rule that speaks of this caller, target and call, whatever its paths. A path is
  # denied if a `denies` rule matches it, else decided by the first that allows it, else denied.

  rules @0 :List(Rule);
  # Sorted by id, at most 1024.
  maxBytes @1 :UInt64;
  maxFiles @2 :UInt64;
  maxDepth @3 :UInt32;
  # Quotas of one transfer; 0: none.
  special @4 :Bool;
  # Set-id bits, sticky bits, devices and security attributes may be made.

  struct Rule {
    id @0 :Text;
    denies @1 :Bool;
    paths @2 :List(Text);
    # Globs; empty: any path.
    runAs @3 :Text;
    # In a guest; empty: the agent's own unprivileged user.
  }
}
