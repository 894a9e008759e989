using System.Diagnostics;
using Spectre.Console;
using ZEngine.Training;

namespace ZEngine.Cli;

/// <summary>Shows a run while it goes on: a bar on a terminal, lines elsewhere.</summary>
internal sealed class RunProgress(Terminal terminal, int steps)
{
    private const int Lines = 20, StepsBeforeEstimate = 20;
    private const int StepsOfCompilation = 5;                  // the first steps are slow: their kernels are compiled

    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private readonly IAnsiConsole _console = terminal.Console();
    private ProgressTask? _bar;
    private double? _heldOut;
    private double _loss, _tokensPerSecond, _secondsPerStep;
    private int _stepsHere;
    private TimeSpan _lastStep;

    /// <summary>Runs a trainer under the display.</summary>
    public TrainingResult Run(Trainer trainer, CancellationToken interruption)
    {
        trainer.StepTaken += OnStep;
        trainer.Evaluated += OnEvaluation;
        trainer.Noticed += notice => WriteLine(notice);
        if (terminal.IsOutputRedirected) return trainer.Run(interruption);
        return _console.Progress().Columns(new ProgressBarColumn { Width = 30 }, new TaskDescriptionColumn { Alignment = Justify.Left }).Start(context =>
        {
            _bar = context.AddTask("starting", maxValue: steps);
            return trainer.Run(interruption);
        });
    }

    private void OnStep(StepReport report)
    {
        // Held-out losses and checkpoints between two steps count: they are part of the time that is left.
        double seconds = (_clock.Elapsed - _lastStep).TotalSeconds;
        _lastStep = _clock.Elapsed;
        _stepsHere++;
        double share = Math.Max(1.0 / Math.Max(1, _stepsHere - StepsOfCompilation), 0.05);
        _secondsPerStep += share * (seconds - _secondsPerStep);
        _tokensPerSecond += share * (report.TokensPerSecond - _tokensPerSecond);
        if (!report.IsSkipped) _loss += Math.Max(1.0 / _stepsHere, 0.1) * (report.Loss - _loss);
        if (_stepsHere == StepsBeforeEstimate) WriteLine(FormattableString.Invariant($"{report.Tokens / report.Step} tokens a step, {_tokensPerSecond:F0} tokens/s: about {Duration(TimeLeft(report.Step))} to go."));
        if (report.IsSkipped) WriteLine(FormattableString.Invariant($"step {report.Step}: skipped, loss or gradient is not finite ({report.SkippedSteps} so far)."));
        if (_bar is not null)
        {
            _bar.Value = report.Step;
            _bar.Description = Markup.Escape(Describe(report.Step));
        }
        else if (report.Step % Math.Max(1, steps / Lines) == 0 || report.Step == steps) WriteLine(Describe(report.Step));
    }

    private void OnEvaluation(EvaluationReport report)
    {
        _heldOut = report.Loss;
        if (_bar is null) WriteLine(FormattableString.Invariant($"step {report.Step,6}  held-out loss {report.Loss:F4}"));
    }

    private string Describe(long step)
    {
        string heldOut = _heldOut is { } loss ? FormattableString.Invariant($"  held out {loss:F3}") : "";
        string left = _stepsHere < StepsBeforeEstimate ? "" : $"  {Duration(TimeLeft(step))} left";
        return FormattableString.Invariant($"step {step,6}/{steps}  loss {_loss:F3}{heldOut}  {_tokensPerSecond:F0} tokens/s{left}");
    }

    private TimeSpan TimeLeft(long step) => TimeSpan.FromSeconds((steps - step) * _secondsPerStep);

    private void WriteLine(string line)
    {
        if (_bar is null) terminal.Output.WriteLine(line);
        else _console.WriteLine(line);
    }

    private static string Duration(TimeSpan time) => time.TotalHours >= 1 ? $"{(int)time.TotalHours} h {time.Minutes:D2} min" : time.TotalMinutes >= 1 ? $"{time.Minutes} min {time.Seconds:D2} s" : $"{time.Seconds} s";
}
