/** Names are trimmed in code: an expression that skips blanks around a lazy name takes cubic time. */
const PLACEHOLDER = /\{\{([^{}]{1,220})\}\}/g

/** The placeholder of the whole row as JSON, unless a column has this name. */
export const WHOLE_ROW = 'row'

/** A row of a dataset: values by column. */
export type DatasetRow = Readonly<Record<string, unknown>>

/** The names between `{{` and `}}`, each once, in order. */
export function placeholdersOf(text: string): readonly string[] {
  return [...new Set(Array.from(text.matchAll(PLACEHOLDER), ([, name = '']) => name.trim()))]
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
    const name = between.trim()
    if (Object.hasOwn(row, name)) return writeValue(row[name])
    if (name === WHOLE_ROW && !columns.includes(WHOLE_ROW)) return JSON.stringify(inOrder(row, columns))
    missing ??= name
    return ''
  })
  return missing === undefined ? { ok: true, text: filled } : { ok: false, missing }
}

/** Placeholders that no row of such a dataset can fill. */
export function unknownPlaceholders(texts: readonly string[], columns: readonly string[]): readonly string[] {
  const known = new Set([...columns, WHOLE_ROW])
  return [...new Set(texts.flatMap(placeholdersOf))].filter((name) => !known.has(name))
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
