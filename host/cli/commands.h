#pragma once
// postern's commands. Each prints its result as text or, with --json, as one JSON document, and gives the exit status;
// what goes wrong is thrown as a CommandFailure (invocation.h). Whatever came from elsewhere is made printable first.

#include "host/cli/invocation.h"

namespace postern::cli {

ExitStatus runStatus(Invocation& run, const StatusArguments& arguments);
ExitStatus runPing(Invocation& run, const PingArguments& arguments);
ExitStatus runInfo(Invocation& run, const InfoArguments& arguments);
ExitStatus runEvents(Invocation& run, const EventsArguments& arguments);
ExitStatus runDoctor(Invocation& run, const DoctorArguments& arguments);
ExitStatus runEnroll(Invocation& run, const EnrollArguments& arguments);
ExitStatus runVmList(Invocation& run);
ExitStatus runVmShow(Invocation& run, const VmShowArguments& arguments);
ExitStatus runVmSet(Invocation& run, const VmSetArguments& arguments);
ExitStatus runVmRemove(Invocation& run, const VmRemoveArguments& arguments);
ExitStatus runVmRekey(Invocation& run, const VmRekeyArguments& arguments);
ExitStatus runPower(Invocation& run, const PowerArguments& arguments);
ExitStatus runPolicyCheck(Invocation& run, const PolicyCheckArguments& arguments);
ExitStatus runPolicyTest(Invocation& run, const PolicyTestArguments& arguments);
ExitStatus runPolicyDiff(Invocation& run, const PolicyDiffArguments& arguments);
ExitStatus runPolicyExplain(Invocation& run, const PolicyExplainArguments& arguments);
ExitStatus runPolicyReload(Invocation& run);
ExitStatus runAuditTail(Invocation& run, const AuditTailArguments& arguments);
ExitStatus runAuditVerify(Invocation& run, const AuditVerifyArguments& arguments);
ExitStatus runConnect(Invocation& run, const ConnectArguments& arguments);
ExitStatus runForward(Invocation& run, const ForwardArguments& arguments);
ExitStatus runServices(Invocation& run, const ServicesArguments& arguments);
ExitStatus runChannelList(Invocation& run, const ChannelListArguments& arguments);
ExitStatus runChannelStats(Invocation& run, const ChannelStatsArguments& arguments);
ExitStatus runChannelBlock(Invocation& run, const ChannelBlockArguments& arguments);
ExitStatus runChannelClose(Invocation& run, const ChannelCloseArguments& arguments);
ExitStatus runCopy(Invocation& run, const CopyArguments& arguments);
ExitStatus runListFiles(Invocation& run, const ListFilesArguments& arguments);
ExitStatus runFileStatus(Invocation& run, const FileStatusArguments& arguments);
ExitStatus runMakeFolder(Invocation& run, const MakeFolderArguments& arguments);
ExitStatus runRemoveFiles(Invocation& run, const RemoveFilesArguments& arguments);

}  // namespace postern::cli
