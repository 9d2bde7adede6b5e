const CODE_SPAN = /(?<!`)(`+)(?!`)([^\n]*?[^`\n])\1(?!`)/g
// Whatever may repeat has a limit or excludes its own beginning: a text of nothing but beginnings takes linear time.
const BADGE = /\[!\[[^[\]]{0,500}\](?:\([^()]{0,2000}\)|\[[^[\]]{0,500}\])\](?:\([^()]{0,2000}\)|\[[^[\]]{0,500}\])/g
const IMAGE = /!\[[^[\]]{0,500}\](?:\([^()]{0,2000}\)|\[[^[\]]{0,500}\])/g
const LINK = /\[([^[\]]{0,500})\]\((?:[^()\s]|\([^()\s]{0,500}\)){0,2000}(?:\s{1,100}["'(][^()]{0,500}\)?)?\)/g
const REFERENCE = /\[([^[\]]{1,500})\]\[([^[\]]{0,500})\]/g
const AUTOLINK = /<((?:https?|mailto):[^<>\s]+)>/g
/** Tags that join words leave nothing behind, tags that part them leave a space. Types such as `Promise<T>` stay. */
const INLINE_TAG =
  /<\/?(?:a|abbr|b|bdi|code|em|font|i|ins|kbd|mark|q|s|samp|small|span|strong|sub|sup|u|var)(?:\s[^<>]*)?\/?>/gi
const BLOCK_TAG =
  /<\/?(?:blockquote|br|center|dd|details|div|dl|dt|figcaption|figure|h[1-6]|hr|img|li|ol|p|picture|pre|section|source|summary|table|tbody|td|th|thead|tr|ul|video)(?:\s[^<>]*)?\/?>/gi
const ENTITIES: Readonly<Record<string, string>> = {
  '&lt;': '<',
  '&gt;': '>',
  '&amp;': '&',
  '&quot;': '"',
  '&#39;': "'",
  '&nbsp;': ' ',
  '&mdash;': '—',
  '&ndash;': '–',
}

/** Whether a text says anything: it has a letter or a digit. */
export function hasWords(text: string): boolean {
  return /[\p{L}\p{N}]/u.test(text)
}

/**
 * Text without images, tags, comments and the targets of links; code spans stay as they are.
 *
 * @param definitions names (lower case) of the links that the document defines, for `[text][name]`
 */
export function cleanInline(text: string, definitions: ReadonlySet<string>): string {
  const spans: string[] = []
  // U+FFFF, which no text may hold, marks the place of a code span.
  const masked = text.replaceAll(CODE_SPAN, (span) => `\uFFFF${spans.push(span) - 1}\uFFFF`)
  const cleaned = withoutComments(masked)
    .replaceAll(BADGE, '')
    .replaceAll(IMAGE, '')
    .replaceAll(LINK, '$1')
    .replaceAll(REFERENCE, (whole: string, label: string, name: string) =>
      definitions.has((name === '' ? label : name).toLowerCase()) ? label : whole,
    )
    .replaceAll(AUTOLINK, '$1')
    .replaceAll(INLINE_TAG, '')
    .replaceAll(BLOCK_TAG, ' ')
    .replaceAll(/&(?:lt|gt|amp|quot|nbsp|mdash|ndash|#39);/g, (entity) => ENTITIES[entity] ?? entity)
  return tidy(cleaned.replaceAll(/\uFFFF(\d+)\uFFFF/g, (whole, place: string) => spans[Number(place)] ?? whole))
}

/** One that never ends is text: dropping what follows would hide it. */
function withoutComments(text: string): string {
  const parts: string[] = []
  let from = 0
  for (;;) {
    const start = text.indexOf('<!--', from)
    const end = start < 0 ? -1 : text.indexOf('-->', start + '<!--'.length)
    if (end < 0) return parts.join('') + text.slice(from)
    parts.push(text.slice(from, start))
    from = end + '-->'.length
  }
}

function tidy(text: string): string {
  const lines = text.split('\n').map((line) => line.trimEnd())
  return lines.filter((line) => line.trim() !== '').join('\n')
}
