/**
 * What a connection measures of itself, cut down to what people ask for.
 *
 * @module stats
 */

/**
 * @typedef {'direct' | 'stun' | 'relay'} Path how media travels: host to host, through NAT mappings found by STUN, or
 *   through the TURN relay
 *
 * @typedef {object} PeerStats
 * @property {Path | undefined} path of the selected candidate pair; `undefined` while there is none
 * @property {string | undefined} localCandidateType `host`, `srflx`, `prflx` or `relay`
 * @property {string | undefined} remoteCandidateType
 * @property {string | undefined} protocol `udp` or `tcp`
 * @property {string | undefined} relayProtocol how this side talks to its relay
 * @property {number | undefined} roundTripMs of the selected pair, milliseconds
 * @property {number | undefined} jitterMs the worst of all incoming media, milliseconds
 * @property {number} packetsReceived of all incoming media
 * @property {number} packetsLost of all incoming media
 * @property {number} bytesSent on the selected pair
 * @property {number} bytesReceived on the selected pair
 * @property {number} framesDecoded of all incoming video
 * @property {number} framesSent of all outgoing video
 *
 * @typedef {object} Quality of a connection since it was measured last
 * @property {'good' | 'fair' | 'poor'} level
 * @property {Path | undefined} path
 * @property {number | undefined} roundTripMs
 * @property {number | undefined} jitterMs
 * @property {number} packetLoss share of the incoming packets that were lost, 0 to 1
 * @property {number} bitrate bits a second, both ways
 */

/** From these on, people notice; the server judges by the same. Share of lost packets, then milliseconds. */
const FAIR = { loss: 0.02, roundTrip: 200, jitter: 30 };
const POOR = { loss: 0.05, roundTrip: 400, jitter: 50 };

/**
 * The path that a candidate pair takes.
 *
 * @param {string | undefined} local candidate type
 * @param {string | undefined} remote candidate type
 * @returns {Path | undefined}
 */
export function pathOf(local, remote) {
  if (!local || !remote) return undefined;
  const types = [local, remote];
  if (types.includes('relay')) return 'relay';
  return types.every((type) => type === 'host') ? 'direct' : 'stun';
}

/**
 * Digests the statistics of a connection.
 *
 * @param {RTCStatsReport | Map<string, any>} report
 * @returns {PeerStats}
 */
export function digest(report) {
  const entries = [...report.values()];
  const pair = selectedPair(report, entries);
  const local = report.get(pair?.localCandidateId);
  const remote = report.get(pair?.remoteCandidateId);
  const all = (type, kind) => entries.filter((entry) => entry.type === type && (!kind || entry.kind === kind));
  const sum = (list, field) => list.reduce((total, entry) => total + (entry[field] ?? 0), 0);
  const incoming = all('inbound-rtp');
  const milliseconds = (seconds) => (seconds === undefined ? undefined : Math.round(seconds * 1000));
  return {
    path: pathOf(local?.candidateType, remote?.candidateType),
    localCandidateType: local?.candidateType,
    remoteCandidateType: remote?.candidateType,
    protocol: local?.protocol,
    relayProtocol: local?.relayProtocol,
    roundTripMs: milliseconds(pair?.currentRoundTripTime ?? all('remote-inbound-rtp')[0]?.roundTripTime),
    jitterMs: incoming.length ? milliseconds(Math.max(...incoming.map(({ jitter }) => jitter ?? 0))) : undefined,
    packetsReceived: sum(incoming, 'packetsReceived'),
    packetsLost: sum(incoming, 'packetsLost'),
    bytesSent: pair?.bytesSent ?? 0,
    bytesReceived: pair?.bytesReceived ?? 0,
    framesDecoded: sum(all('inbound-rtp', 'video'), 'framesDecoded'),
    framesSent: sum(all('outbound-rtp', 'video'), 'framesSent'),
  };
}

/**
 * How good a connection was between two measurements.
 *
 * @param {PeerStats} now
 * @param {PeerStats | undefined} before
 * @param {number} seconds between them
 * @returns {Quality}
 */
export function qualityOf(now, before, seconds) {
  const grown = (field) => Math.max(0, now[field] - (before?.[field] ?? 0));
  const [lost, received] = [grown('packetsLost'), grown('packetsReceived')];
  const packetLoss = lost + received > 0 ? lost / (lost + received) : 0;
  const beyond = ({ loss, roundTrip, jitter }) => packetLoss >= loss || now.roundTripMs >= roundTrip || now.jitterMs >= jitter;
  return {
    level: beyond(POOR) ? 'poor' : beyond(FAIR) ? 'fair' : 'good',
    path: now.path,
    roundTripMs: now.roundTripMs,
    jitterMs: now.jitterMs,
    packetLoss,
    bitrate: before && seconds > 0 ? Math.round(((grown('bytesSent') + grown('bytesReceived')) * 8) / seconds) : 0,
  };
}

/** Chromium and Safari name the pair in the transport, Firefox marks the pair itself. */
function selectedPair(report, entries) {
  const transport = entries.find((entry) => entry.type === 'transport' && entry.selectedCandidatePairId);
  if (transport) return report.get(transport.selectedCandidatePairId);
  const pairs = entries.filter((entry) => entry.type === 'candidate-pair');
  return pairs.find((pair) => pair.selected) ?? pairs.find((pair) => pair.nominated && pair.state === 'succeeded');
}
