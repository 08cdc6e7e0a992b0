/** The types of `passerelle.js`. What each thing does is written where it is done. */

/** A refusal of the server, or a failure on the way to it. */
export class PasserelleError extends Error {
  constructor(code: string, message: string, details?: Record<string, unknown>);
  /** Wire code (`USER_OFFLINE`, …), or `NOT_CONNECTED`, `UNREACHABLE`, `CLOSED`. */
  code: string;
  /** Further fields of the server's error. */
  details: { callId?: string; retryAfterMs?: number; [field: string]: unknown };
}

export interface ConnectOptions {
  /** Of the server; default: where the page is from. */
  url?: string | URL;
  /** Of the user, or what gets a fresh one for each connection; anonymous servers need none. */
  token?: string | (() => string | Promise<string>);
  /** Shown to the others when the token has none. */
  name?: string;
  /** Secret of 16 to 128 characters by which a user without a token is known again; default: one for this tab. */
  anonymousKey?: string;
}

/** Connects to a server. Rejects with a {@link PasserelleError}. */
export function connect(options?: ConnectOptions): Promise<Client>;

export type ClientState = 'connecting' | 'ready' | 'reconnecting' | 'closed';
export type CallState = 'calling' | 'ringing' | 'connecting' | 'connected' | 'reconnecting' | 'ended';
export type CallType = 'video' | 'audio';
/** Host to host, through NAT mappings found by STUN, or through the TURN relay. */
export type Path = 'direct' | 'stun' | 'relay';

export interface MediaOptions {
  /** What this side sends. */
  stream?: MediaStream;
  /** `relay` keeps this side's addresses private. */
  iceTransportPolicy?: RTCIceTransportPolicy;
}

export interface CallOptions extends MediaOptions {
  /** Rings everyone else in the room. */
  roomId?: string;
  conversationId?: string;
  /** Users to ring. */
  to?: string | string[];
  type?: CallType;
  /** At most 8 KiB. */
  metadata?: unknown;
  ringTimeoutMs?: number;
}

export interface HistoryQuery {
  limit?: number;
  cursor?: string;
  direction?: 'incoming' | 'outgoing';
  status?: string;
}

export interface CallRecord {
  callId: string;
  conversationId: string | null;
  type: CallType;
  mode: 'p2p' | 'mesh';
  status: string;
  endReason: string | null;
  initiatorId: string;
  createdAt: string;
  answeredAt: string | null;
  endedAt: string | null;
  /** Whole seconds from answer to end. */
  duration: number | null;
  endedBy: string | null;
  participants: { userId: string; role: string; state: string; [field: string]: unknown }[];
  [field: string]: unknown;
}

export interface ClientEvents {
  state: ClientState;
  incoming: Call;
  draining: { reconnectInMs: number };
  closed: PasserelleError;
}

/** A connected user. */
export class Client {
  private constructor();
  readonly state: ClientState;
  readonly userId: string;
  readonly iceServers: RTCIceServer[];
  /** Calls that have not ended. */
  readonly calls: Map<string, Call>;
  /** Listens to an event; the function that is returned stops it. */
  on<Type extends keyof ClientEvents>(type: Type, listener: (detail: ClientEvents[Type]) => void): () => void;
  /** Enters a room: calls to the room ring here. */
  joinRoom(roomId: string): Promise<{ roomId: string; members: { userId: string; [field: string]: unknown }[]; activeCall?: { callId: string; [field: string]: unknown } }>;
  leaveRoom(roomId: string): Promise<void>;
  /** Starts a call and rings the others. */
  call(options: CallOptions): Promise<Call>;
  /** Enters a call that is running. */
  join(callId: string, options?: MediaOptions & { type?: CallType }): Promise<Call>;
  /** The calls of this user, the latest first. */
  history(query?: HistoryQuery): Promise<{ calls: CallRecord[]; next: string | null }>;
  /** Leaves every call and closes the connection. */
  close(): Promise<void>;
}

export interface Participant {
  id: string;
  name: string | undefined;
  audioEnabled: boolean;
  videoEnabled: boolean;
  screenEnabled: boolean;
  /** Its signaling is interrupted; media may flow all the same. */
  reconnecting: boolean;
}

export interface PeerStats {
  path: Path | undefined;
  localCandidateType: RTCIceCandidateType | undefined;
  remoteCandidateType: RTCIceCandidateType | undefined;
  protocol: string | undefined;
  relayProtocol: string | undefined;
  roundTripMs: number | undefined;
  jitterMs: number | undefined;
  packetsReceived: number;
  packetsLost: number;
  bytesSent: number;
  bytesReceived: number;
  framesDecoded: number;
  framesSent: number;
}

/** How good a connection was since it was measured last. */
export interface Quality {
  level: 'good' | 'fair' | 'poor';
  path: Path | undefined;
  roundTripMs: number | undefined;
  jitterMs: number | undefined;
  /** Share of the incoming packets that were lost, 0 to 1. */
  packetLoss: number;
  /** Bits a second, both ways. */
  bitrate: number;
}

export interface Ending {
  /** `completed`, `declined`, `cancelled`, `missed`, `connectionLost`, … */
  reason: string;
  /** Whole seconds from answer to end. */
  duration?: number;
  endedBy?: string;
  status?: string;
}

export interface CallEvents {
  state: CallState;
  participants: Participant[];
  stream: { participant: Participant | { id: string }; stream: MediaStream };
  path: Path;
  /** By participant. */
  quality: Map<string, Quality>;
  /** Whether this side shares its screen. */
  screen: boolean;
  /** A moderator switched something of this side off. */
  muted: { mediaType?: string; [field: string]: unknown };
  declined: { userId: string };
  ended: Ending;
  error: Error;
}

export class Call {
  private constructor();
  readonly id: string;
  readonly type: CallType;
  readonly direction: 'outgoing' | 'incoming';
  readonly initiator: { userId?: string; displayName?: string; username?: string } | undefined;
  readonly state: CallState;
  /** The others. */
  readonly participants: Map<string, Participant>;
  readonly path: Path | undefined;
  /** When media connected first. */
  readonly connectedAt: Date | undefined;
  readonly sharesScreen: boolean;
  /** Listens to an event; the function that is returned stops it. */
  on<Type extends keyof CallEvents>(type: Type, listener: (detail: CallEvents[Type]) => void): () => void;
  /** Answers an incoming call, or enters one that is running. */
  accept(options?: MediaOptions): Promise<void>;
  decline(reason?: string): Promise<void>;
  /** Leaves the call; before the answer, this cancels it. */
  hangUp(reason?: string): Promise<void>;
  setAudio(enabled: boolean): Promise<void>;
  setVideo(enabled: boolean): Promise<void>;
  /** Sends another camera or microphone from now on. */
  replaceTrack(track: MediaStreamTrack): Promise<void>;
  replaceStream(stream: MediaStream): Promise<void>;
  /** Shows the screen in place of the camera; without `display`, the browser asks what to share. */
  shareScreen(display?: MediaStream): Promise<void>;
  stopScreen(): Promise<void>;
  stats(): Promise<Map<string, PeerStats>>;
}
