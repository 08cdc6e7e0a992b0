// The stock socket.io-client: connects with the transports of argv[3], loses its connection, and goes on with its session
// by nothing but a function in `auth`. Prints one line of JSON.
import { io } from 'socket.io-client';

const [url, transports, token, peerToken] = process.argv.slice(2);
const session = {};
const seen = [];

const connect = (auth, options = {}) =>
  io(url, { auth, transports: transports.split(','), reconnectionDelay: 50, forceNew: true, ...options });

const bob = connect((give) => give({ token, resume: session.key && { ...session } }));
bob.on('session:ready', ({ sid, resume, resumed }) => {
  Object.assign(session, { sid, key: resume.key, seq: session.sid === sid ? session.seq : 0 });
  seen.push({ ready: resumed });
});
bob.onAny((event, payload) => {
  if (!payload?.seq) return;
  session.seq = payload.seq;
  seen.push({ event, seq: payload.seq });
});

const once = (socket, event) => new Promise((resolve) => socket.once(event, resolve));
const within = setTimeout(() => {
  console.error('too slow', JSON.stringify(seen));
  process.exit(1);
}, 60_000);

await once(bob, 'session:ready');
const transport = bob.io.engine.transport.name;
const ada = connect({ token: peerToken });
await once(ada, 'session:ready');
const rung = once(bob, 'call:initiated');
const { data } = await ada.emitWithAck('call:initiate', { to: 'bob', type: 'audio' });
await rung;

// The connection dies without a word; while it is gone the caller hangs up.
const back = once(bob, 'session:ready');
bob.io.engine.close();
await ada.emitWithAck('call:leave', { callId: data.callId });
await back;
while (!seen.some(({ event }) => event === 'call:ended')) await new Promise((resolve) => setTimeout(resolve, 20));

clearTimeout(within);
console.log(JSON.stringify({ transport, final: bob.io.engine.transport.name, seen }));
bob.close();
ada.close();
