//! Kinds of frames. Those from `0x10` to `0x7f` open a channel, so that a guest can refuse the ones it does not know.

pub(super) const HELLO: u8 = 0x01;
pub(super) const REFUSED: u8 = 0x02;

pub(super) const EXEC: u8 = 0x10;
pub(super) const READ_FILE: u8 = 0x11;
pub(super) const WRITE_FILE: u8 = 0x12;
pub(super) const LIST: u8 = 0x13;
pub(super) const STAT: u8 = 0x14;
pub(super) const MAKE_DIRECTORY: u8 = 0x15;
pub(super) const RENAME: u8 = 0x16;
pub(super) const REMOVE: u8 = 0x17;
pub(super) const SET_MODE: u8 = 0x18;
pub(super) const SYMLINK: u8 = 0x19;
pub(super) const READ_LINK: u8 = 0x1a;
pub(super) const UPLOAD_TREE: u8 = 0x1b;
pub(super) const DOWNLOAD_TREE: u8 = 0x1c;
pub(super) const PING: u8 = 0x1d;
pub(super) const ATTACH: u8 = 0x1e;
pub(super) const FORGET: u8 = 0x1f;
pub(super) const LIST_COMMANDS: u8 = 0x20;
pub(super) const CONNECT: u8 = 0x21;
pub(super) const LISTEN: u8 = 0x22;
pub(super) const ACCEPT: u8 = 0x23;
pub(super) const WATCH: u8 = 0x24;
pub(super) const SCAN_TREE: u8 = 0x25;
pub(super) const DOWNLOAD_LINKED: u8 = 0x26;
pub(super) const LAST_OPENING: u8 = 0x7f;

pub(super) const DATA: u8 = 0x80;
pub(super) const END_OF_DATA: u8 = 0x81;
pub(super) const WINDOW: u8 = 0x82;
pub(super) const SIGNAL: u8 = 0x83;
pub(super) const KILL_TREE: u8 = 0x84;
pub(super) const RESIZE: u8 = 0x85;
pub(super) const CLOSE: u8 = 0x86;
pub(super) const DETACH: u8 = 0x87;

pub(super) const STARTED: u8 = 0x90;
pub(super) const STDOUT: u8 = 0x91;
pub(super) const STDERR: u8 = 0x92;
pub(super) const EXITED: u8 = 0x93;
pub(super) const METADATA: u8 = 0x94;
pub(super) const DONE: u8 = 0x95;
pub(super) const UPLOADED: u8 = 0x96;
pub(super) const FAILED: u8 = 0x97;
pub(super) const OUTPUT_LOST: u8 = 0x98;
pub(super) const COMMANDS: u8 = 0x99;
pub(super) const OPENED: u8 = 0x9a;
pub(super) const LISTENING: u8 = 0x9b;
pub(super) const INCOMING: u8 = 0x9c;
