import { parseArgs, type ParseArgsConfig } from 'node:util'

/** The command line is wrong: its message says how, `usage` says what is right. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  readonly usage: string

  constructor(message: string, usage: string) {
    super(message)
    this.usage = usage
  }
}

type OptionTypes = NonNullable<ParseArgsConfig['options']>

/** Reads options and positional arguments. @throws UsageError for everything that is not known */
export function readArguments<const Options extends OptionTypes>(
  args: readonly string[],
  {
    options,
    usage,
    positionals = 0,
  }: { readonly options: Options; readonly usage: string; readonly positionals?: number },
) {
  const parsed = parse(args, options, usage)
  const surplus = parsed.positionals[positionals]
  if (surplus !== undefined) throw new UsageError(`"${surplus}" is not expected here.`, usage)
  return parsed
}

/** @throws UsageError when it is missing */
export function runIdIn([runId]: readonly string[], usage: string): string {
  if (runId === undefined) throw new UsageError('the id of a run is missing.', usage)
  return runId
}

function parse<const Options extends OptionTypes>(args: readonly string[], options: Options, usage: string) {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true, strict: true })
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    // The first sentence says what is wrong; the others explain the syntax of positional arguments.
    throw new UsageError(`${error.message.split('. ')[0]?.replace(/\.$/, '')}.`, usage)
  }
}
