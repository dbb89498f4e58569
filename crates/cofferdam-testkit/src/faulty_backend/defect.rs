//! [`Defect`]: what a backend may get wrong.

/// Something that a backend may get wrong, in the order of the seams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Defect {
    /// Arguments go through text, which bytes do not survive.
    ArgumentsAreText,
    /// Closing standard input does nothing.
    CloseStdinIsIgnored,
    /// A command starts in the workspace, whatever was asked for.
    DirectoryIsIgnored,
    /// A command whose handle is dropped runs on.
    DroppedCommandRunsOn,
    /// Commands get a variable of the host.
    EnvironmentLeaks,
    /// Variables of the request are forgotten.
    EnvironmentOfRequestIsLost,
    /// Each command ends with code 0.
    ExitCodeIsZero,
    /// The end is told twice.
    ExitedTwice,
    /// Variables with impossible names are dropped in silence.
    ImpossibleVariablesAreDropped,
    /// A number that is no signal kills.
    ImpossibleSignalKills,
    /// A command that cannot be started is told as one that ended with 127, as a shell does.
    NotStartedIsExit127,
    /// Each refusal to start has the same number.
    NotStartedIsAlwaysMissing,
    /// Output is decoded as text.
    OutputIsText,
    /// One piece of much output is lost.
    OutputLosesAPiece,
    /// Death by a signal is told as a code, as a shell does.
    SignalIsExitCode,
    /// Signals but the one that kills are not sent.
    SignalsAreIgnored,
    /// `Started` is not told.
    StartedIsMissing,
    /// What is written to standard error is told as standard output.
    StderrIsStdout,
    /// Standard input is open though nobody asked for it.
    StdinIsAlwaysOpen,
    /// Only the first 64 KiB of each writing to standard input arrive.
    StdinIsCut,
    /// Killing the tree kills only its root.
    TreeIsNotKilled,

    /// Calls that are dropped keep their places.
    DroppedCallsKeepPlaces,
    /// A listing goes down one level more than asked for.
    ListingGoesDeeper,
    /// A listing that is cut does not say so.
    ListingIsCutInSilence,
    /// A listing is in no order.
    ListingIsUnsorted,
    /// Making a directory over a file is `Ok`.
    MakeDirectoryIsAlwaysOk,
    /// What is not there reads as empty.
    MissingIsEmpty,
    /// Names are decoded as text.
    NamesAreText,
    /// Upper and lower case are the same.
    NamesHaveNoCase,
    /// `must_be_new` is ignored.
    NewFileReplaces,
    /// Missing directories are always made.
    ParentsAreAlwaysMade,
    /// Reading goes beyond its bound.
    ReadIgnoresBound,
    /// Reading starts at the beginning.
    ReadIgnoresOffset,
    /// Reading panics.
    ReadPanics,
    /// Reading runs a command, which follows every link.
    ReadsAreCommands,
    /// Removing takes full directories.
    RemoveIsRecursive,
    /// Renaming leaves the old name.
    RenameCopies,
    /// Renaming replaces what is there.
    RenameReplaces,
    /// Describing follows a final link.
    StatFollowsLinks,
    /// All times are 0.
    TimesAreZero,
    /// Writing runs a command, which follows every link.
    WritesAreCommands,
    /// Writing shows half of the content first.
    WriteIsNotAtomic,
    /// Each file gets the same mode.
    WriteIgnoresModes,
    /// `keep_mode` is ignored.
    WriteIgnoresKeepMode,
    /// Writing leaves a file beside the one written.
    WriteLeavesAFileBeside,

    /// A download ends early, without a word.
    DownloadEndsEarly,
    /// A download ignores its bounds.
    DownloadHasNoBound,
    /// A download tells names backwards.
    DownloadIsUnsorted,
    /// A download tells links as empty files.
    DownloadLosesLinks,
    /// A scan ignores its bound.
    ScanHasNoBound,
    /// A scan tells each name as a file of its own.
    ScanLosesLinks,
    /// A scan tells of changes only what programs say of them.
    ScanTrustsForgedTimes,
    /// An upload goes on at `..` as if it were not there.
    UploadCleansPaths,
    /// An upload counts files only.
    UploadCountsFiles,
    /// An upload drops the sticky bit.
    UploadLosesSticky,
    /// An upload makes an empty file of a second name.
    UploadIgnoresHardLinks,
    /// An upload gives each entry the same mode.
    UploadLosesModes,
    /// An upload gives each entry the time of writing.
    UploadLosesTimes,
    /// An upload takes an error of its source for the end.
    UploadSwallowsErrors,

    /// Attaching to what is gone makes a new sandbox.
    AttachMakesANewOne,
    /// Closing does nothing.
    ClosedStaysUsable,
    /// Closing that is dropped has done nothing.
    DroppedCloseStops,
    /// A workspace is empty, whatever it was to begin with.
    BaseIsIgnored,
    /// What cannot be done is said to be possible.
    CapabilitiesBoast,
    /// A sandbox that is frozen goes on.
    FreezeIsNothing,
    /// A freeze that was over before is told as one that lasted.
    FreezeAlwaysLasts,
    /// Walls are claimed that do not stand.
    GuaranteesBoast,
    /// Walls are not in order.
    GuaranteesAreUnsorted,
    /// All sandboxes have one name.
    IdsRepeat,
    /// A list has no labels.
    ListForgetsLabels,
    /// The states in a list are of another sandbox.
    ListNamesAnother,
    /// Each loss has the same reason.
    LossHasNoReason,
    /// All sandboxes are one.
    OneWorkspaceForAll,
    /// Removing by name does nothing.
    RemoveDoesNothing,
    /// Removing what is not there fails.
    RemoveOfNobodyFails,
    /// The second close fails.
    SecondCloseFails,
    /// The state names another backend.
    StateNamesAnother,
    /// Demanded walls are not looked at.
    StrictIsIgnored,
    /// The wall time is not kept.
    WallTimeIsIgnored,

    /// The workspace is larger than its limit.
    DiskLimitIsIgnored,
    /// The host's network is there.
    NetworkIsOpen,
    /// Output is bounded later than at its limit.
    OutputLimitIsIgnored,
    /// More commands run than the limit says.
    ProcessLimitIsIgnored,
    /// A limit of 0 is taken for none.
    ZeroIsUnlimited,
}
