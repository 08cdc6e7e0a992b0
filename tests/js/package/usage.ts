// What a TypeScript program makes of the package: this compiles, and every line that must not is marked.
import { connect, Call, Client, PasserelleError, type Quality } from 'passerelle-client';

const client: Client = await connect({ url: 'https://calls.example.org', token: async () => 'fresh' });
const stop: () => void = client.on('incoming', async (call) => {
  call.on('stream', ({ participant, stream }) => console.log(participant.id, stream.getTracks().length));
  call.on('quality', (qualities: Map<string, Quality>) => console.log([...qualities.values()][0]?.level));
  await call.accept({ iceTransportPolicy: 'relay' });
});
stop();

try {
  const room = await client.joinRoom('blue');
  const call: Call = await client.call({ roomId: room.roomId, type: 'audio', ringTimeoutMs: 20_000 });
  call.on('ended', ({ reason, duration }) => console.log(reason, duration ?? 0));
  await call.replaceTrack(new MediaStreamTrack());
  await call.shareScreen();
  const { calls, next } = await client.history({ direction: 'incoming', limit: 5 });
  console.log(calls[0]?.duration, next, (await call.stats()).get('ana')?.path === 'relay');
  await client.close();
} catch (error) {
  if (error instanceof PasserelleError && error.code === 'CALL_ALREADY_ACTIVE') await client.join(error.details.callId ?? '');
}

// @ts-expect-error there is no such event
client.on('ring', () => {});
// @ts-expect-error a type is one of two
await client.call({ roomId: 'blue', type: 'hologram' });
// @ts-expect-error clients come from connect
new Client();
