import type { Row } from './frame.ts'

const HEAD = ['case', 'metric', 'ours', 'baseline', 'ratio', 'spread', 'target', ''] as const
/** The first two columns are words. */
const WORDS = 2

/** Rows as text in columns, ours and the baseline side by side. */
export function tableOf(rows: readonly Row[]): string {
  const lines = [[...HEAD], ...rows.map(cellsOf)]
  const widths = HEAD.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  return lines
    .map((line) =>
      line
        .map((cell, column) => pad(cell, column, widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

function pad(cell: string, column: number, width: number): string {
  return column < WORDS ? cell.padEnd(width) : cell.padStart(width)
}

function cellsOf(row: Row): string[] {
  return [
    row.case,
    row.metric,
    figure(row.ours),
    figure(row.baseline),
    figure(row.ratio),
    row.spread.map(figure).join('–'),
    row.target === null ? '' : `${row.bound === 'at least' ? '≥' : '≤'} ${row.target}`,
    row.target === null ? '' : row.ok ? 'met' : 'MISSED',
  ]
}

/** Three digits that count, thousands apart. */
function figure(value: number | null): string {
  if (value === null) return ''
  return value.toLocaleString(
    'en',
    Math.abs(value) >= 100 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 },
  )
}
