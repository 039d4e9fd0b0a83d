/**
 * lpfileshare sends files into LivePerson conversations and reads them back, through an lpfileshare server. {@link LpFileShare} is the
 * client.
 *
 * @module
 */
export type { AccountOptions, AgentSignIn, BaseClient, ConsumerSignIn, ConversationsOptions, CreateConversationOptions } from "./base.js";
export { LpFileShare, type LpFileShareOptions, type TlsOptions } from "./client.js";
export { type Download, type DownloadOptions, type DownloadResult, type FileRef } from "./download.js";
export { Env } from "./env.js";
export {
  CancelledError, type Code, ConnectionLost, DeadlineError, type FieldViolation, LpFileShareError, type Reason, SinkError, SourceError,
  WatchResetError,
} from "./errors.js";
export { detectFileType } from "./filetype.js";
export { ConversationState } from "./gen/lpfileshare/v1/conversation_service_pb.js";
export { ErrorReason } from "./gen/lpfileshare/v1/error_reason_pb.js";
export { ChecksumKind, FileType, ParticipantRole } from "./gen/lpfileshare/v1/file_pb.js";
export { ImageMetadata, PublishMode, UploadState } from "./gen/lpfileshare/v1/file_sharing_service_pb.js";
export {
  AgentSession, agentToken, ConsumerSession, type ConsumerSessionFields, consumerToken, ConsumerTokens, type ConsumerTokensOptions,
  externalConsumerId, type Identity, type TokenProvider, type TokenSource,
} from "./identity.js";
export type { FileList, FilesOptions } from "./list.js";
export type {
  Capabilities, Checksums, ContentRange, Conversation, ImageChange, Native, PublishResult, SharedFile, UnreadableConversation, Upload,
  UploadResult,
} from "./native.js";
export type { CallOptions } from "./operation.js";
export type { Pieces, Source } from "./source.js";
export type { Stub, Stubs } from "./stubs.js";
export type { UploadOptions } from "./upload.js";
export { VERSION } from "./version.js";
export type { FileWatch, WatchOptions } from "./watch.js";
