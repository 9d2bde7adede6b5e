const MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i
const GROUPS = 8
/** What one customer of a network has at least: 64 of the 128 bits are theirs to choose. */
const GROUPS_OF_NETWORK = 4

/** Where a request comes from, as far as its sender cannot choose: an IPv4 address, or the /64 of an IPv6 address. */
export function networkOf(ip: string): string {
  const mapped = MAPPED.exec(ip)?.[1]
  if (mapped !== undefined) return mapped
  if (!ip.includes(':')) return ip
  const [left = '', right] = ip.split('%', 1).join().split('::', 2)
  const head = groupsOf(left)
  const tail = groupsOf(right ?? '')
  const zeros = right === undefined ? [] : Array.from({ length: GROUPS - head.length - tail.length }, () => '0')
  return `${[...head, ...zeros, ...tail].slice(0, GROUPS_OF_NETWORK).join(':')}::/64`
}

function groupsOf(text: string): readonly string[] {
  return text === '' ? [] : text.split(':').map((group) => group.replace(/^0+(?=.)/, '').toLowerCase())
}
