export interface Column {
  readonly title: string
  /** `decimal`: numbers stand with their points below each other. */
  readonly align?: 'left' | 'right' | 'decimal'
}

/** What stands where there is nothing to say. */
export const NOTHING = '–'

/** Lines of a table with a title line; cells are plain text, the columns as wide as they need to be. */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[]): readonly string[] {
  const cells = columns.map(({ align }, index) => {
    const texts = rows.map((row) => row[index] ?? '')
    return align === 'decimal' ? alignPoints(texts) : texts
  })
  const widths = columns.map(({ title }, index) =>
    Math.max(title.length, ...(cells[index] ?? []).map((text) => text.length)),
  )
  const lineOf = (texts: readonly string[]): string =>
    texts
      .map((text, index) => {
        const width = widths[index] ?? 0
        return (columns[index]?.align ?? 'left') === 'left' ? text.padEnd(width) : text.padStart(width)
      })
      .join('  ')
      .trimEnd()
  return [
    lineOf(columns.map(({ title }) => title)),
    ...rows.map((_, row) => lineOf(cells.map((texts) => texts[row] ?? ''))),
  ]
}

/** Pads decimals so that, set flush right, their points stand below each other. What stands for nothing stays flush. */
function alignPoints(texts: readonly string[]): readonly string[] {
  const places = Math.max(0, ...texts.map((text) => fractionLength(text)))
  return texts.map((text) => (text === NOTHING ? text : text + ' '.repeat(places - fractionLength(text))))
}

/** Of the point and what follows it. */
function fractionLength(text: string): number {
  const point = text.indexOf('.')
  return point < 0 ? 0 : text.length - point
}

/** Breaks a text at spaces; each line is indented. Line breaks of the text are kept. */
export function wrapText(
  text: string,
  { width, indent = '' }: { readonly width: number; readonly indent?: string },
): string {
  return text
    .split('\n')
    .flatMap((paragraph) => wrapParagraph(paragraph, width - indent.length))
    .map((line) => (indent + line).trimEnd())
    .join('\n')
}

function wrapParagraph(text: string, width: number): readonly string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/ +/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else {
      line = line === '' ? word : `${line} ${word}`
    }
  }
  return [...lines, line]
}
