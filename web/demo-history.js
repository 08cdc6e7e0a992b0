/**
 * The list of recent calls.
 *
 * @module demo-history
 */

const SHOWN = 6;
const OUTCOMES = {
  rejected: 'declined',
  cancelled: 'cancelled',
  missed: 'missed',
  busy: 'busy',
  failed: 'failed',
  connectionLost: 'connection lost',
};

/** @param {number} seconds */
export function clockText(seconds) {
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const two = (number) => String(number).padStart(2, '0');
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

function whenText(iso) {
  const at = new Date(iso);
  const today = at.toDateString() === new Date().toDateString();
  const time = at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  return today ? time : `${at.toLocaleDateString([], { day: 'numeric', month: 'short' })}, ${time}`;
}

function withText(record, me) {
  const others = record.participants.filter(({ userId }) => userId !== me);
  const named = others.map(({ userId }) => userId).filter((id) => !id.startsWith('anon:'));
  if (named.length === others.length && named.length > 0) return `with ${named.join(', ')}`;
  return others.length === 1 ? 'with one other' : `with ${others.length} others`;
}

/** @param {any} record of the REST API */
function outcomeOf(record) {
  if (record.duration !== null) return clockText(record.duration);
  if (!record.endedAt) return 'running';
  return OUTCOMES[record.endReason] ?? OUTCOMES[record.status] ?? record.status;
}

/**
 * Shows the latest calls of a user.
 *
 * @param {HTMLElement} list
 * @param {HTMLTemplateElement} template of an entry
 * @param {import('./passerelle.js').Client} client
 * @returns {Promise<number>} how many there are to show
 */
export async function showHistory(list, template, client) {
  const { calls } = await client.history({ limit: SHOWN });
  const entries = calls.map((record) => {
    const entry = template.content.firstElementChild.cloneNode(true);
    const outgoing = record.initiatorId === client.userId;
    const put = (selector, text) => (entry.querySelector(selector).textContent = text);
    entry.dataset.outcome = record.endedAt && record.duration === null ? 'unanswered' : 'answered';
    entry.querySelector('use').setAttribute('href', outgoing ? '#icon-outgoing' : '#icon-incoming');
    entry.querySelector('svg').setAttribute('aria-label', outgoing ? 'Outgoing' : 'Incoming');
    put('.where', record.conversationId ? `“${record.conversationId}”` : 'Direct call');
    put('.with', withText(record, client.userId));
    put('.when', whenText(record.createdAt));
    put('.outcome', outcomeOf(record));
    return entry;
  });
  list.replaceChildren(...entries);
  return entries.length;
}
