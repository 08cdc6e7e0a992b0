/**
 * Something to send: the camera and the microphone, or a moving picture and a quiet tone in their place.
 *
 * @module demo-media
 */

const WIDTH = 640;
const HEIGHT = 360;
const FRAMES_PER_SECOND = 20;
const VIDEO = { width: { ideal: 1280 }, height: { ideal: 720 } };

/**
 * @typedef {object} Media
 * @property {MediaStream} stream
 * @property {'camera' | 'mixed' | 'synthetic'} kind
 * @property {string} note what is sent and why, for people
 * @property {() => void} stop
 */

/**
 * Opens what this device has and makes up what is missing.
 *
 * @param {string} name drawn into the made-up picture
 * @returns {Promise<Media>}
 */
export async function openMedia(name) {
  const { tracks, reason } = await capture();
  const has = (kind) => tracks.some((track) => track.kind === kind);
  const madeUp = [];
  if (!has('video')) madeUp.push(picture(name));
  if (!has('audio')) madeUp.push(tone());
  const kind = madeUp.length === 0 ? 'camera' : tracks.length === 0 ? 'synthetic' : 'mixed';
  return {
    stream: new MediaStream([...tracks, ...madeUp.map((source) => source.track)]),
    kind,
    note: describe(has, reason),
    stop() {
      tracks.forEach((track) => track.stop());
      madeUp.forEach((source) => source.stop());
    },
  };
}

async function capture() {
  if (!navigator.mediaDevices?.getUserMedia) {
    return { tracks: [], reason: 'this page is not on https, so the browser keeps the devices away from it' };
  }
  let reason = '';
  for (const constraints of [{ audio: true, video: VIDEO }, { video: VIDEO }, { audio: true }]) {
    try {
      const stream = await navigator.mediaDevices.getUserMedia(constraints);
      return { tracks: stream.getTracks(), reason };
    } catch (error) {
      reason = explain(error);
      if (error.name === 'NotAllowedError') break;
    }
  }
  return { tracks: [], reason };
}

function explain(error) {
  switch (error.name) {
    case 'NotAllowedError':
      return 'permission was not given';
    case 'NotFoundError':
      return 'none was found';
    case 'NotReadableError':
      return 'another program is using it';
    default:
      return 'the device did not start';
  }
}

function describe(has, reason) {
  if (has('video') && has('audio')) return '';
  const because = reason ? `: ${reason}` : '';
  if (has('video')) return `A quiet tone replaces the microphone${because}.`;
  if (has('audio')) return `A moving picture replaces the camera${because}.`;
  return `A moving picture and a quiet tone replace camera and microphone${because}.`;
}

function picture(name) {
  const canvas = Object.assign(document.createElement('canvas'), { width: WIDTH, height: HEIGHT });
  const context = canvas.getContext('2d');
  const hue = [...name].reduce((sum, letter) => sum + letter.codePointAt(0) * 37, 0) % 360;
  const draw = () => paint(context, name, hue, performance.now() / 1000);
  draw();
  const timer = setInterval(draw, 1000 / FRAMES_PER_SECOND);
  const [track] = canvas.captureStream(FRAMES_PER_SECOND).getVideoTracks();
  return {
    track,
    stop() {
      clearInterval(timer);
      track.stop();
    },
  };
}

function paint(context, name, hue, seconds) {
  const ground = context.createLinearGradient(0, 0, WIDTH, HEIGHT);
  ground.addColorStop(0, `hsl(${hue} 42% 30%)`);
  ground.addColorStop(1, `hsl(${(hue + 50) % 360} 46% 18%)`);
  context.fillStyle = ground;
  context.fillRect(0, 0, WIDTH, HEIGHT);
  for (let index = 0; index < 5; index += 1) {
    const angle = seconds * (0.35 + index * 0.07) + index * 1.9;
    context.beginPath();
    context.arc(
      WIDTH / 2 + Math.cos(angle) * (90 + index * 42),
      HEIGHT / 2 + Math.sin(angle * 1.3) * (50 + index * 22),
      26 + index * 9,
      0,
      Math.PI * 2,
    );
    context.fillStyle = `hsl(${(hue + index * 24) % 360} 70% 65% / 28%)`;
    context.fill();
  }
  context.fillStyle = '#fff';
  context.textAlign = 'center';
  context.font = '600 34px system-ui, sans-serif';
  context.fillText(name, WIDTH / 2, HEIGHT / 2 + 4, 200);
  context.globalAlpha = 0.8;
  context.font = '18px ui-monospace, monospace';
  context.fillText(new Date().toTimeString().slice(0, 8), WIDTH / 2, HEIGHT / 2 + 36);
  context.globalAlpha = 1;
}

function tone() {
  const audio = new AudioContext();
  const output = audio.createMediaStreamDestination();
  const carrier = new OscillatorNode(audio, { frequency: 294 });
  const volume = new GainNode(audio, { gain: 0.02 });
  const swell = new OscillatorNode(audio, { frequency: 0.4 });
  const depth = new GainNode(audio, { gain: 0.015 });
  swell.connect(depth).connect(volume.gain);
  carrier.connect(volume).connect(output);
  carrier.start();
  swell.start();
  const [track] = output.stream.getAudioTracks();
  return {
    track,
    stop() {
      track.stop();
      audio.close();
    },
  };
}
