/** Names are trimmed in code: an expression that skips blanks around a lazy name takes cubic time. */
const PLACEHOLDER = /\{\{([^{}]{1,220})\}\}/g

/** The placeholder of the whole row as JSON, unless a column has this name. */
export const WHOLE_ROW = 'row'

/** A row of a dataset: values by column. */
export type DatasetRow = Readonly<Record<string, unknown>>

/** Placeholders that no row of such a dataset can fill, each once, in order. */
export function unknownPlaceholders(texts: readonly string[], columns: readonly string[]): readonly string[] {
  const known = new Set([...columns, WHOLE_ROW])
  const unknown = texts.flatMap(placesOf).filter((between) => !known.has(between) && !known.has(between.trim()))
  return [...new Set(unknown.map((between) => between.trim()))]
}

/** What stands between the braces: a column whose name begins or ends with a blank is named exactly so. */
function placesOf(text: string): readonly string[] {
  return Array.from(text.matchAll(PLACEHOLDER), ([, between = '']) => between)
}

/** What stands around the placeholders: the prompt of a row whose values are all empty. */
export function withoutValues(text: string): string {
  return text.replaceAll(PLACEHOLDER, '')
}

export type FilledTemplate =
  | { readonly ok: true; readonly text: string }
  | { readonly ok: false; readonly missing: string }

/**
 * Puts the values of a row in place of `{{column}}`: texts as they are, everything else as JSON. What a value holds is
 * material: placeholders in it stay what they are.
 */
export function fillTemplate(
  text: string,
  { row, columns }: { readonly row: DatasetRow; readonly columns: readonly string[] },
): FilledTemplate {
  let missing: string | undefined
  const filled = text.replaceAll(PLACEHOLDER, (_whole, between: string) => {
    const name = Object.hasOwn(row, between) ? between : between.trim()
    if (Object.hasOwn(row, name)) return writeValue(row[name])
    if (name === WHOLE_ROW && !columns.includes(WHOLE_ROW)) return JSON.stringify(inOrder(row, columns))
    missing ??= name
    return ''
  })
  return missing === undefined ? { ok: true, text: filled } : { ok: false, missing }
}

function writeValue(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** As the file had it: the database keeps no order of keys. */
export function inOrder(row: DatasetRow, columns: readonly string[]): DatasetRow {
  return Object.fromEntries(
    columns.flatMap((column): [string, unknown][] => (Object.hasOwn(row, column) ? [[column, row[column]]] : [])),
  )
}
