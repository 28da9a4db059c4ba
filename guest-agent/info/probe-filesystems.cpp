#include "guest-agent/bounded-text.h"
#include "guest-agent/info/mounts.h"
#include "guest-agent/info/probes.h"
#include "guest-agent/info/small-file.h"
#include "guest-agent/info/space-survey.h"

namespace postern::guest {

void findFilesystems(schema::Info::Builder info) {
  // A line may be 4 KiB twice, and a container host has hundreds of them.
  auto mounts = parseMounts(readSmallFile("/proc/self/mountinfo", size_t(1) << 20));
  auto spaces = surveySpace(mounts, askSpace);
  auto out = info.initFilesystems().initValue(unsigned(mounts.size()));
  for (unsigned i = 0; i < mounts.size(); ++i) {
    out[i].setMountPoint(boundedText(mounts[i].mountPoint, MAX_INFO_TEXT));
    out[i].setType(boundedText(mounts[i].type, MAX_TYPE_TEXT));
    out[i].setSource(boundedText(mounts[i].source, MAX_SOURCE_TEXT));
    out[i].setStalled(spaces[i].is<Stalled>());
    KJ_IF_MAYBE (space, spaces[i].tryGet<Space>()) {
      out[i].setTotalBytes(space->totalBytes);
      out[i].setAvailableBytes(space->availableBytes);
    }
  }
}

}  // namespace postern::guest
