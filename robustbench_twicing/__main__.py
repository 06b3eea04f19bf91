from robustbench_twicing.cli.app import main

if __name__ == "__main__":
    main()
