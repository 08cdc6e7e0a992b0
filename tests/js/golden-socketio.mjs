// One device: the stock `socket.io-client`, unchanged, driven through stdin and stdout.
//
//   node golden-socketio.mjs URL OPTIONS
//
// OPTIONS is the JSON of the client's own options (`transports`, `auth`, `extraHeaders`, …). Nothing of this project is
// imported here: what this device understands, every Socket.IO client does.
//
// A command a line in, as JSON:
//   {"emit": event, "payload": {…}, "ack": 7?}   `binary` instead of `payload` sends that many bytes
//   {"cut": true}                                ends the connection without a word of Socket.IO; the last command
// What the device hears, a line each:
//   {"event": name, "payload": {…}} {"ack": 7, "answer": {…}} {"refused": message} {"closed": reason} {"upgraded": name}

import { createInterface } from 'node:readline';
import { io } from 'socket.io-client';

const [url, options] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const socket = io(url, { reconnection: false, forceNew: true, ...JSON.parse(options) });
socket.onAny((event, payload) => say({ event, payload }));
socket.on('connect_error', (error) => say({ refused: error.message }));
socket.on('disconnect', (reason) => say({ closed: reason }));
socket.io.on('open', () => {
  socket.io.engine.on('upgrade', ({ name }) => say({ upgraded: name }));
});

/** A websocket loses its TCP connection, polling stops asking. */
function cut() {
  const { transport } = socket.io.engine;
  if (transport.name === 'websocket') transport.ws._socket.destroy();
  else socket.io.engine.close();
}

function emit({ emit: event, payload, binary, ack }) {
  const body = binary === undefined ? payload : { signal: Buffer.alloc(binary) };
  if (ack === undefined) socket.emit(event, body);
  else socket.emit(event, body, (answer) => say({ ack, answer }));
}

let isCut = false;
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  isCut = Boolean(command.cut);
  if (isCut) cut();
  else emit(command);
}
// After a cut, what is still under way (the last request of polling) ends by itself, and this program with it.
if (!isCut) process.exit(0);
