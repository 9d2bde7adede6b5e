import type { RunView } from '#contracts/api-run.ts'

/** What lets a paused run go on. */
export function waitsFor({ id, reason, question }: RunView): string {
  if (reason === 'input' && question) {
    const choices = question.choices ? `\nIts choices: ${question.choices.join(' | ')}` : ''
    return `The run asks: ${question.text}${choices}\nAnswer with: purser answer ${id} TEXT`
  }
  if (reason === 'money_exhausted') return `The run waits for money: purser top-up ${id} --direct AMOUNT`
  return `The run is paused: purser resume ${id}`
}
