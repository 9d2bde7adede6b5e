import type { Screen } from './screen.ts'
import { formatTable, type Column } from './text-table.ts'

/** Prints a table, indented, with a title line that stands back. */
export function printTable(screen: Screen, columns: readonly Column[], rows: readonly (readonly string[])[]): void {
  const [title = '', ...lines] = formatTable(columns, rows)
  screen.line(screen.paint('dim', `  ${title}`))
  for (const line of lines) screen.line(`  ${line}`)
}
