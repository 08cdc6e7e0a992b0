// The client package against a real server, with a WebRTC that only takes notes:
//
//   node client-without-media.mjs <server URL> <token of the caller> <token of the callee>
//
// Calls, answers, and waits until the server has renewed the credentials of the call. Writes one line of JSON:
//   {"first": username, "renewed": username of setConfiguration, "policy": iceTransportPolicy, "maxBitrate": of the sender}

import WebSocket from 'ws';

globalThis.WebSocket ??= WebSocket;
const connections = [];

globalThis.MediaStream = class {
  getTracks = () => [];
  addTrack() {}
  removeTrack() {}
};

globalThis.RTCPeerConnection = class {
  connectionState = 'new';
  signalingState = 'stable';
  configurations = [];
  parameters = { encodings: [{}] };

  constructor(configuration) {
    this.configurations.push(configuration);
    connections.push(this);
    return new Proxy(this, { get: (target, name) => (name in target ? target[name] : () => Promise.resolve()) });
  }

  setConfiguration(configuration) {
    this.configurations.push(configuration);
  }

  getSenders() {
    return [
      {
        track: { kind: 'video' },
        getParameters: () => this.parameters,
        setParameters: async (parameters) => void (this.parameters = parameters),
      },
    ];
  }

  getTransceivers() {
    return [];
  }

  async getStats() {
    return new Map();
  }

  close() {
    this.signalingState = 'closed';
  }
};

const { connect } = await import('../../web/passerelle.js');
const [url, caller, callee] = process.argv.slice(2);

const open = (token) => connect({ url, token });
const [ana, bruno] = await Promise.all([open(caller), open(callee)]);
const rung = new Promise((resolve) => bruno.on('incoming', resolve));
await ana.call({ to: bruno.userId, type: 'video' });
await (await rung).accept();

const deadline = Date.now() + 60_000;
const until = async (found) => {
  for (let value; Date.now() < deadline; await new Promise((resolve) => setTimeout(resolve, 50))) {
    if ((value = found())) return value;
  }
  throw new Error('waited in vain');
};
const usernameOf = ({ iceServers }) => iceServers.find(({ username }) => username)?.username;
const connection = await until(() => connections[0]);
connection.connectionState = 'connected';
connection.onconnectionstatechange();
const first = usernameOf(connection.configurations[0]);
const renewed = await until(() => connection.configurations.map(usernameOf).find((username) => username !== first));
const { maxBitrate } = connection.parameters.encodings[0];
console.log(JSON.stringify({ first, renewed, policy: connection.configurations[0].iceTransportPolicy, maxBitrate }));
process.exit(0);
