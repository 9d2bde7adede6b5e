const CODE_SPAN = /(?<!`)(`+)(?!`)([^\n]*?[^`\n])\1(?!`)/g
const BADGE = /\[!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])\](?:\([^)]*\)|\[[^\]]*\])/g
const IMAGE = /!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])/g
const LINK = /\[([^\]]*)\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+["'(][^)]*)?\)/g
const REFERENCE = /\[([^\]]+)\]\[([^\]]*)\]/g
const COMMENT = /<!--[\s\S]*?-->/g
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
  const cleaned = masked
    .replaceAll(COMMENT, '')
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

function tidy(text: string): string {
  const lines = text.split('\n').map((line) => line.trimEnd())
  return lines.filter((line) => line.trim() !== '').join('\n')
}
