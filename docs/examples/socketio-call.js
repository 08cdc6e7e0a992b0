// A call with the stock `socket.io-client` and nothing of ours: whoever enters room "blue" rings those who are there.
// The page needs the client's script, which defines `io`, and <video id="video" autoplay playsinline></video>.
const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
const socket = io({ auth: { token: new URLSearchParams(location.search).get('token') ?? undefined } });
let callId, peer;
function connect(iceServers) {
  peer = new RTCPeerConnection({ iceServers });
  for (const track of stream.getTracks()) peer.addTrack(track, stream);
  peer.ontrack = ({ streams }) => (document.getElementById('video').srcObject = streams[0]);
  peer.onicecandidate = ({ candidate }) => candidate && signal({ type: 'ice-candidate', ...candidate.toJSON() });
}
const signal = (message) => socket.emit('call:signal', { callId, signal: message });
socket.on('session:ready', () => socket.emit('room:join', { roomId: 'blue' }).emit('call:initiate', { roomId: 'blue', type: 'video' }));
socket.on('call:error', ({ code, message }) => console.log(code, message)); // USER_OFFLINE: the first to come waits
socket.on('call:initiated', (call) => {
  callId = call.callId;
  if (call.self) connect(call.iceServers);
  else socket.emit('call:join', { callId });
});
socket.on('call:join', async ({ iceServers }) => {
  connect(iceServers);
  await peer.setLocalDescription(); // who comes later offers
  signal({ type: 'offer', sdp: peer.localDescription.sdp });
});
socket.on('call:signal', async ({ signal: { type, sdp, candidate, sdpMid, sdpMLineIndex } }) => {
  if (type === 'ice-candidate') return peer.addIceCandidate({ candidate, sdpMid, sdpMLineIndex });
  await peer.setRemoteDescription({ type, sdp });
  if (type === 'offer') await peer.setLocalDescription().then(() => signal(peer.localDescription.toJSON()));
});
socket.on('call:ended', () => peer?.close());
