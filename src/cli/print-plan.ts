import type { RunPlan } from '#contracts/api-plan.ts'
import { printTable } from './print-table.ts'
import type { Screen } from './screen.ts'
import { NOTHING } from './text-table.ts'

/** What a run would do and cost, for people. */
export function printPlan(screen: Screen, plan: RunPlan): void {
  screen.line(screen.paint('bold', 'Routes'))
  printTable(
    screen,
    [
      { title: 'model' },
      { title: 'route' },
      { title: 'balance' },
      { title: 'input per million' },
      { title: 'output' },
      { title: '' },
    ],
    plan.routes.map(({ model, route, balanceClass, currency, price, skipped }) => [
      model,
      route,
      `${balanceClass} ${currency}`,
      price?.inputPerMillionTokens.amount ?? NOTHING,
      price?.outputPerMillionTokens.amount ?? NOTHING,
      skipped === null ? '' : skipped.replaceAll('_', ' '),
    ]),
  )
  screen.line(`\n${screen.paint('bold', 'Steps')}`)
  if (plan.steps) {
    printTable(
      screen,
      [{ title: 'path' }, { title: 'calls' }, { title: 'input tokens' }, { title: 'output tokens' }],
      plan.steps.map(({ path, calls, inputTokens, outputTokens }) => [
        path,
        ...[calls, inputTokens, outputTokens].map(rangeOf),
      ]),
    )
  } else screen.line('  the agent does not say')
  screen.line(`\n${screen.paint('bold', 'Cost')}`)
  for (const { balanceClass, low, high, currency } of plan.estimate) {
    screen.line(`  ${low.amount} to ${high.amount} ${currency} when ${balanceClass} pays`)
  }
  for (const { balanceClass, p10, p90, currency } of plan.history?.costs ?? []) {
    const runs = plan.history?.runs ?? 0
    screen.line(
      `  ${p10.amount} to ${p90.amount} ${currency} of ${balanceClass}, four in five of the last ${runs} runs`,
    )
  }
  if (plan.coversHigh !== null) {
    screen.line(
      plan.coversHigh ? '  The envelope covers the most of it.' : '  The envelope does not cover the most of it.',
    )
  }
}

function rangeOf({ least, most }: { readonly least: number; readonly most: number }): string {
  return least === most ? `${most}` : `${least} to ${most}`
}
