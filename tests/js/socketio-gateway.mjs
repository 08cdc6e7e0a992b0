// A signaling gateway as one writes it with the stock `socket.io` server: tokens, rooms, relay of signals, recovery of
// connections. What `benches/signaling` compares with. `node --expose-gc socketio-gateway.mjs TOKEN_SECRET`

import { createHmac, randomUUID, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const secret = process.argv[2];

// HS256 with expiry, nothing else: less than a library does.
function verify(token) {
  const [header, payload, signature] = String(token).split('.');
  const expected = createHmac('sha256', secret).update(`${header}.${payload}`).digest();
  const given = Buffer.from(signature ?? '', 'base64url');
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) throw new Error('NOT_AUTHENTICATED');
  if (JSON.parse(Buffer.from(header, 'base64url')).alg !== 'HS256') throw new Error('NOT_AUTHENTICATED');
  const claims = JSON.parse(Buffer.from(payload, 'base64url'));
  if (!(claims.exp > Date.now() / 1000)) throw new Error('TOKEN_EXPIRED');
  return claims;
}

const http = createServer();
const io = new Server(http, {
  transports: ['websocket', 'polling'],
  connectionStateRecovery: { maxDisconnectionDuration: 120_000, skipMiddlewares: false },
});

io.use((socket, next) => {
  try {
    const { sub, name } = verify(socket.handshake.auth.token);
    Object.assign(socket.data, { user: sub, name });
    next();
  } catch (error) {
    next(error);
  }
});

io.on('connection', (socket) => {
  const { user } = socket.data;
  socket.join(`user:${user}`);
  const answer = (ack, data) => ack?.({ success: true, data });
  const refuse = (ack, code) => ack?.({ success: false, error: { code } });

  socket.on('call:initiate', ({ to, type }, ack) => {
    const callId = randomUUID();
    socket.join(callId);
    for (const callee of [to].flat()) io.to(`user:${callee}`).emit('call:initiated', { callId, type, from: user });
    answer(ack, { callId });
  });
  socket.on('call:join', ({ callId }, ack) => {
    socket.join(callId);
    socket.to(callId).emit('call:participant-joined', { callId, user });
    answer(ack, { callId });
  });
  socket.on('call:signal', ({ callId, signal }, ack) => {
    if (typeof signal?.type !== 'string' || !socket.rooms.has(callId)) return refuse(ack, 'NOT_IN_CALL');
    const target = signal.to ? `user:${signal.to}` : callId;
    const stamped = { ...signal, from: user };
    socket.to(target).emit('call:signal', { callId, from: user, type: signal.type, signal: stamped });
    answer(ack, { delivered: true });
  });
});

process.on('SIGUSR2', () => globalThis.gc?.());
http.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
  const { address, port } = http.address();
  console.log(JSON.stringify({ level: 'INFO', listener: 'http', address: `${address}:${port}` }));
});
