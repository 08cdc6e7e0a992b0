/**
 * The choice of camera and microphone.
 *
 * @module demo-devices
 */

const KINDS = { videoinput: 'video', audioinput: 'audio' };

/**
 * Fills a list with the devices of a kind.
 *
 * @param {HTMLSelectElement} select
 * @param {MediaDeviceInfo[]} devices
 * @param {MediaStreamTrack | undefined} current
 */
function fill(select, devices, current) {
  const chosen = current?.getSettings().deviceId;
  const options = devices.map(({ deviceId, label }, index) => {
    const option = new Option(label || `Device ${index + 1}`, deviceId);
    option.selected = deviceId === chosen;
    return option;
  });
  if (!options.length) options.push(new Option('None found', ''));
  select.replaceChildren(...options);
  select.disabled = devices.length < 2;
}

/**
 * Shows what there is to choose from.
 *
 * @param {{video: HTMLSelectElement, audio: HTMLSelectElement}} selects
 * @param {MediaStream} stream in use
 */
export async function showDevices(selects, stream) {
  const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  for (const [deviceKind, kind] of Object.entries(KINDS)) {
    const devices = all.filter((device) => device.kind === deviceKind && device.deviceId);
    fill(selects[kind], devices, stream.getTracks().find((track) => track.kind === kind));
  }
}

/**
 * Opens another device.
 *
 * @param {'video' | 'audio'} kind
 * @param {string} deviceId
 * @returns {Promise<MediaStreamTrack>}
 */
export async function openDevice(kind, deviceId) {
  const stream = await navigator.mediaDevices.getUserMedia({ [kind]: { deviceId: { exact: deviceId } } });
  return stream.getTracks()[0];
}
