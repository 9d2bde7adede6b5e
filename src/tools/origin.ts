/** So that twenty hits, or sixteen citations with their quotes, fit into a value of 16 KB. */
const MAX_SOURCE_BYTES = 160
const MAX_TITLE_BYTES = 80

interface Origin {
  readonly source: string
  readonly title: string
}

/** Where a passage comes from, short enough for a value; the payload has it in full. */
export function shortOrigin({ source, title }: Origin): Origin {
  return { source: cut(source, MAX_SOURCE_BYTES), title: cut(title, MAX_TITLE_BYTES) }
}

function cut(text: string, maxBytes: number): string {
  if (Buffer.byteLength(text) <= maxBytes) return text
  let kept = ''
  let bytes = Buffer.byteLength('…')
  for (const character of text) {
    bytes += Buffer.byteLength(character)
    if (bytes > maxBytes) break
    kept += character
  }
  return `${kept}…`
}
