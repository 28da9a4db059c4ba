#include <kj/debug.h>

#include "protocol/transfer/entry.h"

namespace postern::transfer {

namespace {

void writeEntry(const Entry& from, schema::Entry::Builder to) {
  to.setKind(schema::Entry::Kind(uint16_t(from.kind)));
  to.setName(from.name.asBytes());
  to.setMode(from.mode);
  to.setModifiedSeconds(from.modifiedSeconds);
  to.setModifiedNanoseconds(from.modifiedNanoseconds);
  to.setUid(from.uid);
  to.setGid(from.gid);
  if (from.owner.size() > 0) to.setOwner(from.owner);
  if (from.group.size() > 0) to.setGroup(from.group);
  to.setSize(from.size);
  if (from.target.size() > 0) to.setTarget(from.target.asBytes());
  if (!from.linkTo.empty()) {
    auto components = to.initLinkTo(unsigned(from.linkTo.size()));
    for (unsigned i = 0; i < components.size(); ++i) components.set(i, from.linkTo[i].asBytes());
  }
  to.setHasLinks(from.hasLinks);
  to.setDeviceMajor(from.deviceMajor);
  to.setDeviceMinor(from.deviceMinor);
  if (!from.attributes.empty()) {
    auto attributes = to.initAttributes(unsigned(from.attributes.size()));
    for (unsigned i = 0; i < attributes.size(); ++i) {
      attributes[i].setName(from.attributes[i].name);
      attributes[i].setValue(from.attributes[i].value);
    }
  }
  to.setInlined(from.inlined);
  to.setWantsBase(from.wantsBase);
  to.setStream(from.stream);
  KJ_IF_MAYBE (hash, from.hash) to.setHash(*hash);
}

void writeTotals(const Totals& from, schema::Totals::Builder to) {
  to.setFiles(from.files);
  to.setDirectories(from.directories);
  to.setBytes(from.bytes);
  to.setDeepest(from.deepest);
  to.setTops(from.tops);
  to.setStream(from.stream);
  to.setHoles(from.holes);
}

void writeEnd(const FileEnd& from, schema::Forward::FileEnd::Builder to) {
  KJ_IF_MAYBE (hash, from.hash) to.setHash(*hash);
}

void writeFailed(const EntryFailed& from, schema::Forward::Failed::Builder to) {
  to.setName(from.name.asBytes());
  write(from.problem, to.initProblem());
}

}  // namespace

void write(const Forward& from, schema::Forward::Builder to) {
  KJ_SWITCH_ONEOF(from) {
    KJ_CASE_ONEOF(totals, Totals) writeTotals(totals, to.initTotals());
    KJ_CASE_ONEOF(entry, Entry) writeEntry(entry, to.initEntry());
    KJ_CASE_ONEOF(data, Data) to.initData().setOffset(data.offset);
    KJ_CASE_ONEOF(hole, Hole) {
      auto out = to.initHole();
      out.setHoleOffset(hole.offset);
      out.setHoleBytes(hole.bytes);
    }
    KJ_CASE_ONEOF(same, Same) {
      auto out = to.initSame();
      out.setSameOffset(same.offset);
      out.setSameBytes(same.bytes);
    }
    KJ_CASE_ONEOF(end, FileEnd) writeEnd(end, to.initFileEnd());
    KJ_CASE_ONEOF(failed, FileFailed) write(failed.problem, to.initFileFailed());
    KJ_CASE_ONEOF(leave, Leave) to.setLeave();
    KJ_CASE_ONEOF(failed, EntryFailed) writeFailed(failed, to.initFailed());
    KJ_CASE_ONEOF(done, Done) to.setDone();
  }
}

}  // namespace postern::transfer
