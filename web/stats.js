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
 * @property {number} bytesSent on the selected pair
 * @property {number} bytesReceived on the selected pair
 * @property {number} framesDecoded of all incoming video
 * @property {number} framesSent of all outgoing video
 */

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
  const video = (type, field) =>
    entries
      .filter((entry) => entry.type === type && entry.kind === 'video')
      .reduce((sum, entry) => sum + (entry[field] ?? 0), 0);
  const roundTrip = pair?.currentRoundTripTime;
  return {
    path: pathOf(local?.candidateType, remote?.candidateType),
    localCandidateType: local?.candidateType,
    remoteCandidateType: remote?.candidateType,
    protocol: local?.protocol,
    relayProtocol: local?.relayProtocol,
    roundTripMs: roundTrip === undefined ? undefined : Math.round(roundTrip * 1000),
    bytesSent: pair?.bytesSent ?? 0,
    bytesReceived: pair?.bytesReceived ?? 0,
    framesDecoded: video('inbound-rtp', 'framesDecoded'),
    framesSent: video('outbound-rtp', 'framesSent'),
  };
}

/** Chromium and Safari name the pair in the transport, Firefox marks the pair itself. */
function selectedPair(report, entries) {
  const transport = entries.find((entry) => entry.type === 'transport' && entry.selectedCandidatePairId);
  if (transport) return report.get(transport.selectedCandidatePairId);
  const pairs = entries.filter((entry) => entry.type === 'candidate-pair');
  return pairs.find((pair) => pair.selected) ?? pairs.find((pair) => pair.nominated && pair.state === 'succeeded');
}
