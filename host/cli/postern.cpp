#include "host/cli/postern.h"

#include "host/cli/commands.h"
#include "host/cli/failure-text.h"

namespace postern::cli {

namespace {

ExitStatus runMonitorCommand(Invocation& run, const MonitorCommand& command) {
  KJ_SWITCH_ONEOF(command) {
    KJ_CASE_ONEOF(arguments, StatusArguments) {
      return runStatus(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, PingArguments) {
      return runPing(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, InfoArguments) {
      return runInfo(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, EventsArguments) {
      return runEvents(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, DoctorArguments) {
      return runDoctor(run, arguments);
    }
  }
  KJ_UNREACHABLE;
}

ExitStatus runFileCommand(Invocation& run, const FileCommand& command) {
  KJ_SWITCH_ONEOF(command) {
    KJ_CASE_ONEOF(arguments, CopyArguments) {
      return runCopy(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, ListFilesArguments) {
      return runListFiles(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, FileStatusArguments) {
      return runFileStatus(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, MakeFolderArguments) {
      return runMakeFolder(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, RemoveFilesArguments) {
      return runRemoveFiles(run, arguments);
    }
  }
  KJ_UNREACHABLE;
}

ExitStatus runServiceCommand(Invocation& run, const ServiceCommand& command) {
  KJ_SWITCH_ONEOF(command) {
    KJ_CASE_ONEOF(arguments, ConnectArguments) {
      return runConnect(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, ForwardArguments) {
      return runForward(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, ServicesArguments) {
      return runServices(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, ChannelListArguments) {
      return runChannelList(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, ChannelStatsArguments) {
      return runChannelStats(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, ChannelBlockArguments) {
      return runChannelBlock(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, ChannelCloseArguments) {
      return runChannelClose(run, arguments);
    }
  }
  KJ_UNREACHABLE;
}

ExitStatus runCommand(Invocation& run, const Command& command) {
  KJ_SWITCH_ONEOF(command) {
    KJ_CASE_ONEOF(monitor, MonitorCommand) {
      return runMonitorCommand(run, monitor);
    }
    KJ_CASE_ONEOF(arguments, EnrollArguments) {
      return runEnroll(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, VmListArguments) {
      return runVmList(run);
    }
    KJ_CASE_ONEOF(arguments, VmShowArguments) {
      return runVmShow(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, VmSetArguments) {
      return runVmSet(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, VmRemoveArguments) {
      return runVmRemove(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, VmRekeyArguments) {
      return runVmRekey(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, PowerArguments) {
      return runPower(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, PolicyCheckArguments) {
      return runPolicyCheck(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, PolicyTestArguments) {
      return runPolicyTest(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, PolicyDiffArguments) {
      return runPolicyDiff(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, AuditVerifyArguments) {
      return runAuditVerify(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, PolicyExplainArguments) {
      return runPolicyExplain(run, arguments);
    }
    KJ_CASE_ONEOF(arguments, PolicyReloadArguments) {
      return runPolicyReload(run);
    }
    KJ_CASE_ONEOF(arguments, AuditTailArguments) {
      return runAuditTail(run, arguments);
    }
    KJ_CASE_ONEOF(files, FileCommand) {
      return runFileCommand(run, files);
    }
    KJ_CASE_ONEOF(services, ServiceCommand) {
      return runServiceCommand(run, services);
    }
  }
  KJ_UNREACHABLE;
}

enum class Form { TEXT, JSON };

ExitStatus report(World& world, const client::Failure& failure, Form form) {
  auto status = exitStatusOf(failure.kind);
  if (form == Form::TEXT) {
    world.error(errorText(failure));
    return status;
  }
  JsonWriter json;
  json.beginObject().field("ok", false).key("error");
  writeError(json, failure);
  json.field("exitStatus", static_cast<int>(status)).endObject();
  world.out(kj::str(json.finish(), '\n'));
  return status;
}

ExitStatus runArguments(World& world, const Arguments& arguments) {
  auto form = arguments.options.json ? Form::JSON : Form::TEXT;
  try {
    Invocation run(world, arguments.options);
    return runCommand(run, arguments.command);
  } catch (const CommandFailure& failed) {
    return report(world, failed.failure, form);
  } catch (const kj::Exception& exception) {
    // The machine's fault, or ours.
    return report(world, client::failure(client::FailureKind::FAILED, kj::str(exception.getDescription())), form);
  }
}

}  // namespace

ExitStatus runPostern(World& world, kj::ArrayPtr<const kj::StringPtr> words) {
  auto parsed = parseArguments(words, world.currentFolder());
  KJ_SWITCH_ONEOF(parsed) {
    KJ_CASE_ONEOF(help, HelpText) {
      world.out(help.text);
      return ExitStatus::DONE;
    }
    KJ_CASE_ONEOF(error, UsageError) {
      auto failure = client::failure(client::FailureKind::INVALID, kj::mv(error.text));
      return report(world, failure, error.json ? Form::JSON : Form::TEXT);
    }
    KJ_CASE_ONEOF(arguments, Arguments) {
      return runArguments(world, arguments);
    }
  }
  KJ_UNREACHABLE;
}

}  // namespace postern::cli
